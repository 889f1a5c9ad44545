"""Tracking stores for tests: the schema takes over a second to make, so it is made once."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import pytest

from carray.runs_folder import RunsFolder
from carray.tracking import check_server


@cache
def _empty_store() -> Path:
    runs = RunsFolder(Path(tempfile.mkdtemp(prefix="carray-store-")))
    atexit.register(shutil.rmtree, runs.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        check_server(runs)
    return runs.tracking_file


def with_store(path: Path) -> RunsFolder:
    """Return `path` as a runs folder with an empty tracking store."""
    path.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_empty_store(), path / "mlflow.db")
    return RunsFolder(path)
