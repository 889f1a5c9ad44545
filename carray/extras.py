"""Libraries: those that only some commands need, and what they say about themselves."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from carray.errors import ConfigError


def check_extra(libraries: Iterable[str], extra: str) -> None:
    """Refuse to begin without the libraries of one of carray's extras.

    Raises:
        ConfigError: one isn't installed; how it is, is told.
    """
    missing = [library for library in libraries if find_spec(library) is None]
    if missing:
        raise ConfigError(f"this needs {', '.join(missing)}: pip install 'carray[{extra}]'")


def import_from_here() -> None:
    """Let modules beside where a command runs be imported, as `python -m` does."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)


@contextmanager
def quieted(loggers: Iterable[str], level: int) -> Iterator[None]:
    """Keep all warnings, and what these loggers say below `level`, off the screen."""
    before = {logger: logger.level for logger in map(logging.getLogger, loggers)}
    with warnings.catch_warnings(action="ignore"):
        try:
            for logger in before:
                logger.setLevel(level)
            yield
        finally:
            for logger, own in before.items():
                logger.setLevel(own)
