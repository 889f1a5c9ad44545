"""The disk budget: the worst weights go first, the best of each study and running ones stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carray.config import build_config
from carray.costs import TIME_BUDGET
from carray.metrics import VAL_CALIBRATED_LOG_LOSS, VAL_LOG_LOSS, VAL_TOP1
from carray.records import StudyRecord, TrialFolder, TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.search.disk_budget import DiskBudget
from carray.typing import GIB

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
            epochs = ({VAL_CALIBRATED_LOG_LOSS: loss, VAL_LOG_LOSS: loss, VAL_TOP1: 0.5},)
            record = TrialRecord(
                study=name, number=number, state=state, config=build_config({}), epochs=epochs
            )
            folder.trial(number).write_record(record)
            folder.trial(number).weights_file.write_bytes(bytes(2**20))
            folder.trial(number).logits_file.touch()
    return runs


def left(runs: RunsFolder) -> set[str]:
    return {
        record.name
        for study in runs.studies()
        for folder, record in study.trials()
        if folder.weights_file.exists()
    }


def budget(runs: RunsFolder, mib: float, keep_best: int) -> DiskBudget:
    return DiskBudget(runs, mib * MIB_GIB, keep_best)


def end(runs: RunsFolder, name: str, number: int, loss: float) -> TrialFolder:
    """Add a complete trial with weights of a MiB."""
    record = TrialRecord(
        study=name,
        number=number,
        state=TrialState.COMPLETE,
        config=build_config({}),
        epochs=({VAL_CALIBRATED_LOG_LOSS: loss, VAL_LOG_LOSS: loss, VAL_TOP1: 0.5},),
    )
    folder = runs.study(name).trial(number)
    folder.write_record(record)
    folder.weights_file.write_bytes(bytes(2**20))
    folder.logits_file.touch()
    return folder


def test_nothing_goes_while_there_is_room(runs: RunsFolder) -> None:
    assert budget(runs, 10, keep_best=1).enforce(runs.study("a").trial(0)) == []
    assert len(left(runs)) == 10


def test_the_worst_of_every_study_go_first_until_the_rest_fits(runs: RunsFolder) -> None:
    gone = budget(runs, 7.5, keep_best=1).enforce(runs.study("a").trial(0))
    assert {*gone} >= {"a/0002", "b/0002"}
    assert len(gone) == 3
    assert len(left(runs)) == 7


def test_the_best_and_the_running_stay_whatever_the_budget(runs: RunsFolder) -> None:
    budget(runs, 0, keep_best=2).enforce(runs.study("a").trial(0))
    assert left(runs) == {f"{s}/{n}" for s in "ab" for n in ("0001", "0003", "0004")}


def test_each_end_counts_what_that_trial_left(runs: RunsFolder) -> None:
    watched = budget(runs, 11.5, keep_best=1)
    assert watched.enforce(end(runs, "a", 5, loss=0.5)) == []
    assert watched.enforce(end(runs, "a", 6, loss=0.05)) == ["a/0005"]
    assert watched.enforce(end(runs, "a", 7, loss=0.6)) == ["a/0007"]


def test_what_others_delete_is_not_deleted_for_again(runs: RunsFolder) -> None:
    watched = budget(runs, 11.5, keep_best=1)
    watched.enforce(end(runs, "a", 5, loss=0.5))
    runs.study("b").trial(0).weights_file.unlink()
    assert watched.enforce(end(runs, "a", 6, loss=0.6)) == []
    assert "a/0006" in left(runs)


def test_what_others_write_counts_after_some_ends(runs: RunsFolder) -> None:
    watched = budget(runs, 11.5, keep_best=1)
    watched.enforce(runs.study("a").trial(0))
    for number in (5, 6):
        end(runs, "b", number, loss=0.5 + number)
    gone = [watched.enforce(runs.study("a").trial(0)) for _ in range(2)]
    assert gone[-1] == ["b/0006"]


def test_an_end_looks_at_no_other_trials_folder(
    runs: RunsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5, 40):
        end(runs, "a", number, loss=0.5)
    watched = budget(runs, 100, keep_best=1)
    watched.enforce(runs.study("a").trial(0))
    looked_at: list[str] = []
    stat = os.stat  # `Path.stat` comes to it; Python 3.13 tells of a folder without it
    monkeypatch.setattr(os, "stat", lambda p, **how: looked_at.append(str(p)) or stat(p, **how))
    ended = end(runs, "a", 40, loss=0.5)
    looked_at.clear()
    watched.enforce(ended)
    assert str(ended.weights_file) in looked_at
    assert set(looked_at) <= {str(ended.weights_file), str(ended.checkpoint)}


def test_checkpoints_of_ended_trials_go_before_any_weights_the_worst_first(
    runs: RunsFolder,
) -> None:
    for number in range(5):
        checkpoint = runs.study("a").trial(number).checkpoint
        checkpoint.mkdir()
        (checkpoint / "state.pt").write_bytes(bytes(3 * 2**20))
    assert budget(runs, 17, keep_best=0).enforce(runs.study("a").trial(0)) == []
    kept = {n for n in range(5) if runs.study("a").trial(n).checkpoint.exists()}
    assert kept == {1, 4}, "the best, and the one that runs"
    assert len(left(runs)) == 10
    assert budget(runs, 12, keep_best=0).enforce(runs.study("a").trial(0)) == ["a/0002"]
    assert not runs.study("a").trial(1).checkpoint.exists()
    assert runs.study("a").trial(4).checkpoint.exists()


def test_weights_that_logits_are_still_to_be_made_of_stay(runs: RunsFolder) -> None:
    """The trial has ended, and its lane is at work on them, perhaps another study's."""
    runs.study("b").trial(2).logits_file.unlink()
    budget(runs, 0, keep_best=0).enforce(runs.study("a").trial(0))
    assert left(runs) == {"a/0004", "b/0002", "b/0004"}


def test_what_cannot_be_read_is_left_alone(runs: RunsFolder) -> None:
    runs.study("a").record_file.write_text("{")
    runs.study("b").trial(2).record_file.write_text("")
    gone = budget(runs, 0, keep_best=0).enforce(runs.study("b").trial(0))
    assert sorted(gone) == ["b/0000", "b/0001", "b/0003"]


def test_what_a_budget_stopped_is_not_touched_once_it_goes_on(runs: RunsFolder) -> None:
    stopped = runs.study("b").trial(0)
    record, disk = stopped.record(), budget(runs, 9, keep_best=1)
    by_budget = {"state": TrialState.PRUNED, "reason": TIME_BUDGET}
    stopped.write_record(record.model_copy(update=by_budget))
    assert disk.enforce(stopped) == ["a/0002"]
    stopped.write_record(record.model_copy(update={"state": TrialState.RUNNING}))
    stopped.remove_logits()
    assert disk.enforce(end(runs, "b", 5, 0.05)) == ["b/0002"]
