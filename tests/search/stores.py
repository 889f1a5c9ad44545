"""Optuna's storages for tests: the schema takes over a second to make, so it is made once."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from carray.search.sampling.storage import Database


@cache
def _empty_storage() -> Path:
    file = Path(tempfile.mkdtemp(prefix="carray-optuna-")) / "optuna.db"
    atexit.register(shutil.rmtree, file.parent)
    Database(f"sqlite:///{file}").close()
    return file


def make_optuna_file(file: Path) -> str:
    """Make an empty storage at `file` unless there is one; return its URL."""
    if not file.exists():
        shutil.copyfile(_empty_storage(), file)
    return f"sqlite:///{file}"
