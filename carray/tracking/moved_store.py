"""A store that was moved or copied with its runs folder: MLflow keeps whole paths of artifacts."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

PLACES = (  # of MLflow's schema: tables, and their columns of artifacts' paths
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def follow_move(store: Path, artifacts: Path) -> None:
    """Have a store's artifacts be those beside it, where it names a folder elsewhere.

    A copy would else go on writing into what it was copied from, and a moved store into a folder
    that is gone. Artifacts that were put elsewhere on purpose, at a URL or in a folder of another
    name, stay. A store that can't be read or written is left to whoever opens it next.

    Args:
        store: the sqlite file.
        artifacts: the folder of its artifacts, absolute.
    """
    own = artifacts.as_uri()
    with suppress(sqlite3.Error), closing(sqlite3.connect(store, timeout=30)) as database:
        found = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        roots = {location.rpartition("/")[0] for (location,) in found if location}
        for root in roots - {own}:
            if root.startswith("file:") and _is_elsewhere(root, artifacts):
                with database:  # all of it or nothing
                    _rename(database, root, own)


def _is_elsewhere(root: str, artifacts: Path) -> bool:
    folder = Path(unquote(urlsplit(root).path))
    if folder.name != artifacts.name:
        return False
    return not (folder.exists() and artifacts.exists() and folder.samefile(artifacts))


def _rename(database: sqlite3.Connection, root: str, own: str) -> None:
    for table, column in PLACES:
        database.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
            f"WHERE substr({column}, 1, ?) = ?",
            (own, len(root) + 1, len(root) + 1, f"{root}/"),
        )
