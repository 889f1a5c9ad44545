"""What is said to type next can be typed from the folder that a person is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from carray.reports.hints import runs_option


def test_the_runs_folder_is_told_only_where_commands_would_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert runs_option(None) == ""
    assert runs_option(Path("runs")) == ""
    assert runs_option(tmp_path / "runs") == ""
    assert runs_option(tmp_path / "demo" / "runs") == " --runs demo/runs"
    assert runs_option(tmp_path / "my runs") == " --runs 'my runs'"
    assert runs_option(tmp_path.parent / "other") == f" --runs {tmp_path.parent / 'other'}"
    monkeypatch.setenv("CARRAY_RUNS", str(tmp_path / "kept"))
    assert runs_option(tmp_path / "kept") == ""
    assert runs_option(tmp_path / "runs") == " --runs runs"
