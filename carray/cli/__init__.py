"""The command line: parse, one typed call, print, exit code. Nothing is computed here."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from carray.interrupts import EXIT_INTERRUPTED, held_while_importing

REFUSED = {  # what the system says of a path, and the cure
    errno.EACCES: "choose one that you may read and write",
    errno.EPERM: "choose one that you may read and write",
    errno.EROFS: "choose one that you may read and write",
    errno.ENOSPC: "free some disk, or choose another",
    errno.EDQUOT: "free some disk, or choose another",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a folder",
    errno.EEXIST: "choose another name",
    errno.ENOENT: "choose another",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line: `words` after `carray`, else this process's own."""

    def command() -> None:
        from carray.cli.app import app

        app(words)

    run(command)


def run(command: Callable[[], None]) -> None:
    """Run what a person started; a `CarrayError`, or a path that the system refuses, becomes one
    red sentence and exit code 2."""
    # a thread that calls Ray once this process has left it must not start or join another
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    _replace_unknown_letters()
    with held_while_importing():
        _run(command)


def _run(command: Callable[[], None]) -> None:
    try:
        from carray.cli.log import log_on_stderr
        from carray.errors import (
            EXIT_GOES_ON,
            EXIT_USAGE,
            CarrayError,
            ClusterError,
            ServerFault,
            UploadError,
            unreadable_in_locale,
        )
    except KeyboardInterrupt:
        _leave(EXIT_INTERRUPTED)
    try:
        with log_on_stderr(), _printed_whole():
            command()
    except CarrayError as error:
        goes_on = isinstance(error, ClusterError | ServerFault | UploadError)
        _refuse(str(error), EXIT_GOES_ON if goes_on else EXIT_USAGE)
    except OSError as error:
        is_nameless = error.errno == errno.ENOENT and error.filename is None
        if is_nameless and not _is_somewhere():
            _refuse("the folder that you are in is gone: go to another with `cd`", EXIT_USAGE)
        if is_nameless or error.errno not in REFUSED:
            raise
        # of a rename its target; a write to a full disk doesn't say which
        path = error.filename2 or error.filename or _unnamed_file()
        _refuse(f"{path} can't be used ({error.strerror}): {REFUSED[error.errno]}", EXIT_USAGE)
    except UnicodeEncodeError as error:
        if sys.getfilesystemencoding() == "utf-8":
            raise
        _refuse(unreadable_in_locale(error.object), EXIT_USAGE)
    except RuntimeError as error:
        if "home directory" not in str(error):  # pathlib's sentence
            raise
        why = f"user {os.getuid()} has no home folder, which Ray and MLflow look for: set HOME to "
        _refuse(f"{why}a folder that may be written", EXIT_USAGE)
    except KeyboardInterrupt:
        _leave(EXIT_INTERRUPTED)
    except SystemExit as ended:
        if ended.code == EXIT_INTERRUPTED:  # what typer makes of a KeyboardInterrupt
            _leave(EXIT_INTERRUPTED)
        raise


def _is_somewhere() -> bool:
    """Say whether the working folder is there."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _printed_whole() -> Iterator[None]:
    """Write in the end what was printed: where that fails, Python's own last words are long."""
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # whoever read it has left
            from carray.files import hush

            hush(sys.stdout)


def _unnamed_file() -> str:
    """Return what a write that names no file failed to: a line more tells whether it's stdout."""
    try:
        print(flush=True)
    except OSError:
        from carray.files import hush

        hush(sys.stdout)
        return "what the output goes to"
    return "a file"


def _replace_unknown_letters() -> None:
    """Let a terminal show `?` for letters that its encoding lacks: a name must cost no result.

    In the locale C Python's own answer, `surrogateescape`, is one to broken file names alone.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def _refuse(why: str, exit_code: int) -> NoReturn:
    from rich.console import Console

    from carray.reports.table import fitted

    Console(stderr=True, width=None).print(
        fitted(f"carray: {why}", sys.stderr),
        style="red",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if "ray" in sys.modules:
        from carray.search.placement.ray_cluster import lanes_are_left

        if lanes_are_left():
            _leave(exit_code)
    sys.exit(exit_code)


def _leave(exit_code: int) -> NoReturn:
    """Exit without Ray's end: its threads take ten seconds to unwind, or end this process with 1
    where a lane still asks it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if "ray" in sys.modules:
        os._exit(exit_code)
    sys.exit(exit_code)
