"""Records: what begins one, and what their files say."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from carray import provenance
from carray.config import TrialConfig
from carray.errors import ConfigError
from carray.provenance import git_commit, versions
from carray.records import StudyRecord, TrialRecord, TrialState
from carray.runs_folder import RunsFolder


@pytest.mark.parametrize(
    ("metric", "direction"), [("val/log_loss", "minimize"), ("val/top1", "maximize")]
)
def test_a_studys_file_says_the_direction_that_its_metric_wants(
    tmp_path: Path, metric: str, direction: str
) -> None:
    file = tmp_path / "study.json"
    study = StudyRecord(name="s", metric=metric)
    study.write(file)
    stored = json.loads(file.read_text())
    assert (stored["metric"], stored["direction"]) == (metric, direction)
    assert StudyRecord.read(file) == study
    assert study.model_copy(update={"trials": 3}).direction == direction


def test_runs_are_in_this_folder_unless_it_is_said_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunsFolder.at().study("s").path == tmp_path / "runs" / "studies" / "s"
    monkeypatch.setenv("CARRAY_RUNS", str(tmp_path / "own"))
    assert RunsFolder.at().path == tmp_path / "own"
    assert RunsFolder.at("other").path == tmp_path / "other"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"/file is a file: name a folder with --runs"):
        RunsFolder.at("file")


def test_a_trial_begins_with_what_it_is_made_by() -> None:
    before = time.time()
    record = TrialRecord.begin("s", 7, TrialConfig(), "m", kind="refit", refit_of=3)
    assert (record.name, record.manifest_hash, record.refit_of) == ("s/0007", "m", 3)
    assert (record.kind, record.state, record.epochs) == ("refit", TrialState.RUNNING, ())
    assert record.started_at is not None
    assert before <= record.started_at <= time.time()
    assert (record.versions, record.git_commit) == (versions(), git_commit())


def test_a_repository_around_an_installed_carray_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "venv" / "carray"
    package.mkdir(parents=True)
    (package / "provenance.py").touch()
    (tmp_path / "own.py").touch()
    author = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for call in (("init", "-q"), ("add", "own.py"), (*author, "commit", "-qm", "theirs")):
        subprocess.run(["git", *call], cwd=tmp_path, check=True)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert git_commit.__wrapped__() == ""


def test_a_trial_may_have_begun_before_its_record() -> None:
    assert TrialRecord.begin("s", 0, TrialConfig(), "m", started_at=5.0).started_at == 5.0
