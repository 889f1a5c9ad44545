"""Prints what the library logs while a command runs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from carray.masking import masked
from carray.progress import ON_BOARD


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
        text = masked(record.getMessage())
        if self._on_stdout:
            print(text, flush=True)
        elif not getattr(record, ON_BOARD, False):  # else it stands on stdout already
            from carray.reports.table import fitted  # numpy's import would slow `--help`

            whose = "carray: " if record.levelno >= logging.WARNING else ""
            print(fitted(f"{whose}{text}", sys.stderr), file=sys.stderr, flush=True)
