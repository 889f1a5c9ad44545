"""Libraries that only some commands need."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from carray.errors import ConfigError


def check_extra(libraries: Iterable[str], extra: str) -> None:
    """Refuse to begin without the libraries of one of carray's extras.

    Raises:
        ConfigError: one isn't installed; how it is, is told.
    """
    missing = [library for library in libraries if find_spec(library) is None]
    if missing:
        raise ConfigError(f"this needs {', '.join(missing)}: pip install 'carray[{extra}]'")
