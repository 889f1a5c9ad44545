"""The command line: parse, one typed call, print, exit code. Nothing is computed here."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import NoReturn

from carray.errors import CarrayError
from carray.progress import ON_BOARD

USAGE_ERROR = 2  # exit code of everything a user can mend
INTERRUPTED = 130
REFUSED = {  # what the system says of a path, and the cure
    errno.EACCES: "choose one that you may read and write",
    errno.EPERM: "choose one that you may read and write",
    errno.EROFS: "choose one that you may read and write",
    errno.ENOSPC: "free some disk, or choose another",
    errno.EDQUOT: "free some disk, or choose another",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a folder",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line: `words` after `carray`, else this process's own."""

    def command() -> None:
        from carray.cli.app import app  # an interrupt may come while this imports

        app(words)

    run(command)


def run(command: Callable[[], None]) -> None:
    """Run what a person started; a `CarrayError`, or a path that the system refuses, becomes one
    red sentence and exit code 2."""
    _replace_unknown_letters()
    try:
        with log_on_stderr():
            command()
    except CarrayError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        # of a rename its target; a write to a full disk doesn't say which
        path = error.filename2 or error.filename or "a file"
        _refuse(f"{path} can't be used ({error.strerror}): {REFUSED[error.errno]}")
    except KeyboardInterrupt:
        _leave()
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            _leave()
        raise


def _replace_unknown_letters() -> None:
    """Let a terminal show `?` for letters that its encoding lacks: a name must cost no result."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


@contextmanager
def log_on_stderr() -> Iterator[None]:
    """Print what the logger `carray` is given from INFO on; no other handler is touched."""
    with _logged("carray", _Printer(on_stdout=False)):
        yield


@contextmanager
def log_on_stdout(name: str) -> Iterator[None]:
    """Print what the logger `name` is given on stdout instead: it is a command's own answer."""
    logger = logging.getLogger(name)
    logger.propagate = False
    try:
        with _logged(name, _Printer(on_stdout=True)):
            yield
    finally:
        logger.propagate = True


@contextmanager
def _logged(name: str, handler: logging.Handler) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(level or logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Printer(logging.Handler):
    """A record a line, on what stdout or stderr is then; there warnings say whose they are."""

    def __init__(self, on_stdout: bool) -> None:
        super().__init__()
        self._on_stdout = on_stdout

    def emit(self, record: logging.LogRecord) -> None:
        if self._on_stdout:
            print(record.getMessage(), flush=True)
        elif not getattr(record, ON_BOARD, False):  # else it stands on stdout already
            whose = "carray: " if record.levelno >= logging.WARNING else ""
            print(f"{whose}{record.getMessage()}", file=sys.stderr, flush=True)


def _refuse(why: str) -> NoReturn:
    from rich.console import Console

    Console(stderr=True, width=None).print(
        f"carray: {why}", style="red", markup=False, highlight=False, soft_wrap=True
    )
    sys.exit(USAGE_ERROR)


def _leave() -> NoReturn:
    """Exit with 130, and without the ten seconds that Ray's threads take to unwind."""
    sys.stdout.flush()
    sys.stderr.flush()
    if "ray" in sys.modules:
        os._exit(INTERRUPTED)
    sys.exit(INTERRUPTED)
