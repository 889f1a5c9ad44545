"""The default store: whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from carray.errors import TrackingError
from carray.records import RunsFolder
from carray.tracking import check_server


@pytest.fixture(autouse=True)
def _default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_who_is_killed_while_the_store_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With half its tables MLflow refuses it for ever."""
    from mlflow.store.db import utils

    def killed(engine: object) -> None:
        raise KeyboardInterrupt

    runs = RunsFolder(tmp_path)
    (tmp_path / ".mlflow.db.1-dead").write_text("left by one that was killed at once")
    monkeypatch.setattr(utils, "_upgrade_db", killed)
    with pytest.raises(KeyboardInterrupt):
        check_server(runs)
    assert [file.name for file in tmp_path.glob("*.db*")] == []


def test_a_store_that_is_broken_is_refused_with_what_helps(tmp_path: Path) -> None:
    runs = RunsFolder(tmp_path)
    runs.tracking_file.write_bytes(b"SQLite format 3\0" + b"\0" * 500)
    with pytest.raises(
        TrackingError, match=r"mlflow\.db doesn't answer .*; .* is broken, move it away"
    ):
        check_server(runs)
