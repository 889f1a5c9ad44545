"""The disk budget: the worst weights go first, the best of each study and running ones stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from carray.config import build_config
from carray.metrics import VAL_LOG_LOSS, VAL_TOP1
from carray.records import RunsFolder, StudyRecord, TrialRecord, TrialState
from carray.search.budget import GIB, enforce_budget

MIB_GIB = 2**20 / GIB  # a MiB in GiB


@pytest.fixture
def runs(tmp_path: Path) -> RunsFolder:
    """Two studies of five trials, each with weights of a MiB; the last of each is still running."""
    runs = RunsFolder(tmp_path)
    for name in ("a", "b"):
        folder = runs.study(name)
        folder.path.mkdir(parents=True)
        StudyRecord(name=name, started_at=1.0).write(folder.record_file)
        for number, loss in enumerate((0.3, 0.1, 0.4, 0.2, 0.9)):
            state = TrialState.RUNNING if number == 4 else TrialState.COMPLETE
            epochs = ({VAL_LOG_LOSS: loss, VAL_TOP1: 0.5},)
            record = TrialRecord(
                study=name, number=number, state=state, config=build_config({}), epochs=epochs
            )
            folder.trial(number).write_record(record)
            folder.trial(number).weights_file.write_bytes(bytes(2**20))
    return runs


def left(runs: RunsFolder) -> set[str]:
    return {
        record.name
        for study in runs.studies()
        for folder, record in study.trials()
        if folder.weights_file.exists()
    }


def test_nothing_goes_while_there_is_room(runs: RunsFolder) -> None:
    assert enforce_budget(runs, 10 * MIB_GIB, keep_best=1) == []
    assert len(left(runs)) == 10


def test_the_worst_of_every_study_go_first_until_the_rest_fits(runs: RunsFolder) -> None:
    gone = enforce_budget(runs, 7.5 * MIB_GIB, keep_best=1)
    assert {record.name for record in gone} >= {"a/0002", "b/0002"}
    assert len(gone) == 3
    assert len(left(runs)) == 7


def test_the_best_and_the_running_stay_whatever_the_budget(runs: RunsFolder) -> None:
    enforce_budget(runs, 0.0, keep_best=2)
    assert left(runs) == {f"{s}/{n}" for s in "ab" for n in ("0001", "0003", "0004")}
