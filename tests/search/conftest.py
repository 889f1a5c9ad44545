"""What all tests of searches share."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from optuna.storages._rdb.storage import _VersionManager
from sqlalchemy import Engine, event


@pytest.fixture(autouse=True, scope="session")
def _newest_schema_is_looked_up_once() -> Iterator[None]:
    """Optuna loads all its migrations for it whenever a storage is opened; it still compares."""
    found: list[str] = []
    look_up = _VersionManager.get_head_version

    def looked_up(manager: _VersionManager) -> str:
        if not found:
            found.append(look_up(manager))
        return found[0]

    def quick(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", quick)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_VersionManager, "get_head_version", looked_up)
        yield
    event.remove(Engine, "connect", quick)
