"""The ledger: what Optuna is told, what a killed process leaves, what the next one does with it."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from carray.costs import TIME_BUDGET
from carray.errors import RecordError
from carray.metrics import VAL_CALIBRATED_LOG_LOSS, VAL_LOG_LOSS, VAL_TOP1
from carray.records import StudyFolder, StudyRecord, TrialRecord, TrialState
from carray.search.ledger import Ledger
from carray.search.sampling.optuna_trials import OUT_OF_MEMORY
from carray.search.sampling.samplers import build_sampler
from carray.search.sampling.storage import open_optuna_study
from carray.search.space.yaml_reader import parse_space
from tests.opened import OPENED, stored_trials
from tests.search.stores import make_optuna_file
from tests.tracking.memory import MemoryTracker

SPACE = """
version: 1
metric: val/log_loss
direction: minimize
fixed: {epochs: 3, pretrained: false}
search:
  optimizer.lr: {loguniform: [1e-4, 1e-2]}
start:
  - {optimizer.lr: 3e-3}
"""


def open_ledger(
    folder: Path,
    trials: int = 4,
    sampler_name: str = "random",
    clock: Callable[[], float] = time.monotonic,
    text: str = SPACE,
) -> tuple[Ledger, MemoryTracker]:
    space = parse_space(text, "space.yaml")
    study = StudyRecord(name="s", trials=trials, manifest_hash="m", max_epochs=3)
    files = StudyFolder(folder / "studies" / "s")
    files.path.mkdir(parents=True, exist_ok=True)
    study.write(files.record_file)
    sampler = build_sampler(sampler_name, 0)
    storage = make_optuna_file(files.optuna_file)
    optuna_study = OPENED.enter_context(open_optuna_study("s", ["minimize"], storage, sampler))
    if not optuna_study.trials:
        for point in space.start_points():
            optuna_study.enqueue_trial(point)
    tracker = MemoryTracker()
    return Ledger(files, study, space, optuna_study, [tracker], clock=clock), tracker


def killed(*words: object, **names: object) -> None:
    raise KeyboardInterrupt


def row(loss: float) -> dict[str, float]:
    return {VAL_LOG_LOSS: loss, VAL_CALIBRATED_LOG_LOSS: loss, VAL_TOP1: 1 / (1 + loss)}


def optuna_trial(ledger: Ledger, number: int) -> optuna.trial.FrozenTrial:
    sampler_number = ledger.record(number).sampler_number
    return next(t for t in stored_trials(ledger.folder) if t.number == sampler_number)


def test_starting_points_are_drawn_first_and_each_trial_has_a_seed_of_its_own(
    tmp_path: Path,
) -> None:
    ledger, _ = open_ledger(tmp_path)
    first, second = ledger.ask(), ledger.ask()
    assert first is not None and second is not None
    assert first.config.optimizer.lr == 3e-3
    assert (first.is_given, second.is_given) == (True, False)
    assert first.config.seed != second.config.seed
    assert first.config.head.seed is second.config.head.seed is None, "each head has its trial's"


def test_a_given_point_that_has_to_wait_for_room_is_still_given(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    drawn = ledger.ask(lambda config, epochs: config.optimizer.lr != 3e-3)
    given = ledger.ask()
    assert drawn is not None and given is not None
    assert (given.config.optimizer.lr, given.is_given) == (3e-3, True)
    assert not drawn.is_given


def test_a_complete_trial_is_told_with_its_best_epochs_value(tmp_path: Path) -> None:
    ledger, tracker = open_ledger(tmp_path)
    record = ledger.ask()
    assert record is not None
    for epoch, loss in enumerate((2.0, 1.0, 1.5), start=1):
        ledger.report(record.number, epoch, row(loss), {"parameters": 7})
    ledger.end(record.number, TrialState.COMPLETE)
    assert optuna_trial(ledger, 0).value == 1.0
    assert ledger.record(0).parameters == 7
    assert tracker.runs[0].curves[-1]["best/val/log_loss"] == 1.0


def test_a_pruned_trial_is_told_its_best_value_at_its_last_epoch(
    tmp_path: Path,
) -> None:
    ledger, _ = open_ledger(tmp_path)
    ledger.ask()
    ledger.report(0, 1, row(1.0), {})
    ledger.report(0, 2, row(1.7), {})
    ledger.end(0, TrialState.PRUNED, "asha after epoch 2")
    told = optuna_trial(ledger, 0)
    assert told.state == optuna.trial.TrialState.PRUNED
    assert told.intermediate_values == {2: 1.0}


def test_a_collapsed_trial_is_told_pruned_and_is_never_among_the_best(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    ledger.ask()
    ledger.report(0, 1, row(2.5), {})
    ledger.end(0, TrialState.COLLAPSED, "predictions fall on about 1.0 of 12 classes")
    told = optuna_trial(ledger, 0)
    assert told.state == optuna.trial.TrialState.PRUNED
    assert told.intermediate_values == {1: 2.5}
    assert ledger.best() == []


def test_out_of_memory_is_told_as_an_infeasible_constraint(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    ledger.ask()
    ledger.end(0, TrialState.INFEASIBLE, "out of memory")
    told = optuna_trial(ledger, 0)
    assert told.state == optuna.trial.TrialState.PRUNED
    assert any(OUT_OF_MEMORY in str(key) for key in told.system_attrs)


def test_a_failed_trial_is_told_fail_and_counts_as_one_of_the_trials(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path, trials=1)
    ledger.ask()
    ledger.end(0, TrialState.FAILED, "loss is nan")
    assert optuna_trial(ledger, 0).state == optuna.trial.TrialState.FAIL
    assert ledger.ask() is None


def test_an_epoch_reported_twice_is_kept_once(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    ledger.ask()
    ledger.report(0, 1, row(1.0), {})
    ledger.report(0, 1, row(9.0), {})
    assert [r[VAL_LOG_LOSS] for r in ledger.record(0).epochs] == [1.0]


def test_what_a_killed_process_was_running_is_asked_for_again_with_its_epochs(
    tmp_path: Path,
) -> None:
    ledger, _ = open_ledger(tmp_path)
    ledger.ask()
    ledger.report(0, 1, row(1.0), {})
    ledger.ask()
    ledger.end(1, TrialState.PRUNED)
    again, _ = open_ledger(tmp_path)
    record = again.ask()
    assert record is not None
    assert (record.number, len(record.epochs)) == (0, 1)
    following = again.ask()
    assert following is not None and following.number == 2
    again.report(0, 2, row(0.5), {})
    again.end(0, TrialState.COMPLETE)
    assert optuna_trial(again, 0).value == 0.5


@pytest.mark.parametrize("state", [state for state in TrialState if state.is_finished()])
def test_an_end_that_optuna_was_told_of_and_no_record_says_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: TrialState
) -> None:
    """The process was killed between the two."""
    ledger, _ = open_ledger(tmp_path)
    ledger.ask()
    ledger.report(0, 1, row(1.0), {})
    monkeypatch.setattr(ledger, "_store", lambda record: record)
    ledger.end(0, state)
    told = optuna_trial(ledger, 0)
    again, _ = open_ledger(tmp_path)
    record = again.ask()
    assert record is not None
    assert (record.number, record.state) == (0, "running")
    assert again.end(0, state).state == state
    assert optuna_trial(again, 0) == told


@pytest.mark.parametrize("left", ["", '[4, {"val/log', "whole"])
def test_epochs_are_added_to_the_record_and_there_whenever_the_process_died(
    tmp_path: Path, left: str
) -> None:
    """It died after a line, in the middle of one, or after the record but before the lines went."""
    ledger, _ = open_ledger(tmp_path)
    ledger.ask()
    files = ledger.trial_folder(0)
    for epoch in (1, 2, 3):
        ledger.report(0, epoch, row(1 / epoch), {"initialisation": "random:0"})
    assert len(TrialRecord.read(files.record_file).epochs) == 1
    lines = files.epochs_file.read_text()
    assert lines.count("\n") == 2
    if left == "whole":
        files.write_record(ledger.record(0))
    files.epochs_file.write_text(lines + left.replace("whole", ""))
    assert files.record() == ledger.record(0)

    again, _ = open_ledger(tmp_path)
    record = again.ask()
    assert record == ledger.record(0)
    again.report(0, 4, row(0.25), {"initialisation": "random:0"})
    again.report(0, 5, row(0.2), {"initialisation": "random:0"})
    losses = [r[VAL_LOG_LOSS] for r in files.record().epochs]
    assert losses == [1.0, 1 / 2, 1 / 3, 0.25, 0.2]
    ended = again.end(0, TrialState.COMPLETE)
    assert TrialRecord.read(files.record_file) == ended
    assert not files.epochs_file.exists()


@pytest.mark.parametrize("opened", [0, 1], ids=["a starting point", "what was drawn"])
def test_what_was_drawn_and_never_recorded_is_drawn_again_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: int
) -> None:
    """The process was killed between the two, the next one while it put that right."""
    ledger, _ = open_ledger(tmp_path)
    for _ in range(opened):
        ledger.ask()
    stray, params, _ = ledger._draw()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, "tell", killed)
        open_ledger(tmp_path)
    again, _ = open_ledger(tmp_path)
    tried = [record for _ in range(4) if (record := again.ask())]
    assert tried[opened].params == params
    stored = stored_trials(again.folder)
    assert stored[stray].state == optuna.trial.TrialState.FAIL
    points = [trial.system_attrs.get("fixed_params") for trial in stored]
    assert points.count(params) == 2 - opened  # a starting point was one before


def budget_stopped_trial(folder: Path) -> Ledger:
    """Have a study's first trial stopped by a budget after two of its three epochs."""
    ledger, _ = open_ledger(folder)
    ledger.ask()
    for epoch, loss in enumerate((2.0, 1.0), start=1):
        ledger.report(0, epoch, row(loss), {})
    files = ledger.trial_folder(0)
    files.checkpoint.mkdir()
    files.weights_file.touch()
    files.logits_file.touch()
    ledger.end(0, TrialState.PRUNED, TIME_BUDGET)
    return ledger


def test_the_next_call_goes_on_with_what_a_budget_stopped(tmp_path: Path) -> None:
    files = budget_stopped_trial(tmp_path).trial_folder(0)
    told = optuna.trial.TrialState
    ledger, _ = open_ledger(tmp_path)
    assert optuna_trial(ledger, 0).state == told.RUNNING
    assert ledger.ended == []
    record = ledger.ask(lambda config, epochs: epochs == 1)
    assert record is not None and record.number == 0
    assert (record.state, record.reason, len(record.epochs)) == (TrialState.RUNNING, "", 2)
    assert files.record() == record and not files.logits_file.exists()
    ledger.report(0, 3, row(0.5), {})
    ledger.end(0, TrialState.COMPLETE)
    assert (optuna_trial(ledger, 0).state, optuna_trial(ledger, 0).value) == (told.COMPLETE, 0.5)
    assert (again := ledger.ask()) is not None and again.number == 1


def test_what_a_budget_stopped_stays_so_while_its_rest_does_not_fit(tmp_path: Path) -> None:
    budget_stopped_trial(tmp_path)
    ledger, _ = open_ledger(tmp_path, trials=1)
    assert ledger.ask(lambda config, epochs: False) is None
    assert not ledger.is_full, "a later budget has something to do"
    assert ledger.record(0).reason == TIME_BUDGET
    assert (record := ledger.ask()) is not None and record.number == 0


def test_what_a_budget_stopped_has_ended_once_its_checkpoint_is_gone(tmp_path: Path) -> None:
    files = budget_stopped_trial(tmp_path).trial_folder(0)
    files.checkpoint.rmdir()
    ledger, _ = open_ledger(tmp_path)
    assert optuna_trial(ledger, 0).state == optuna.trial.TrialState.PRUNED
    assert optuna_trial(ledger, 0).intermediate_values == {2: 1.0}
    assert [record.number for record in ledger.ended] == [0]
    assert (record := ledger.ask()) is not None and record.number == 1
    assert files.logits_file.exists()


def test_a_refit_given_up_is_begun_anew_once_its_trial_is_among_the_best_again(
    tmp_path: Path,
) -> None:
    ledger, _ = open_ledger(tmp_path)
    ledger.ask()
    of = ledger.report(0, 1, row(1.0), {})
    for opened in (lambda: ledger.open_refit(of, 6), lambda: ledger.open_fold(of, 0)):
        begun = opened()
        assert opened().number == begun.number
        ledger.end(begun.number, TrialState.PRUNED, "others are the best now")
        assert opened().number == begun.number + 1


def test_more_trials_extend_a_study_and_a_stopped_one_opens_none(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path, trials=1)
    ledger.ask()
    ledger.end(0, TrialState.PRUNED)
    assert ledger.ask() is None
    wider, _ = open_ledger(tmp_path, trials=2)
    wider.stopped = "interrupted"
    assert wider.ask() is None
    wider.stopped = ""
    record = wider.ask()
    assert record is not None and record.number == 1


def test_an_extended_study_goes_on_in_a_sequence(tmp_path: Path) -> None:
    for trials in (5, 9):
        ledger, _ = open_ledger(tmp_path, trials, "qmc")
        while record := ledger.ask():
            ledger.end(record.number, TrialState.PRUNED)
    assert len({record.config.optimizer.lr for record in ledger.records}) == 9


def test_refits_come_from_the_best_complete_trials_and_are_opened_once(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    for number, loss in enumerate((2.0, 1.0, math.nan)):
        ledger.ask()
        if math.isfinite(loss):
            ledger.report(number, 1, row(loss), {})
        ledger.end(number, TrialState.COMPLETE if math.isfinite(loss) else TrialState.FAILED)
    assert [record.number for record in ledger.best()] == [1, 0]
    refit = ledger.open_refit(ledger.best()[0], 6)
    assert (refit.kind, refit.refit_of, refit.config.epochs) == ("refit", 1, 6)
    assert ledger.open_refit(ledger.best()[0], 6).number == refit.number
    assert len(ledger.records) == 3


@pytest.mark.parametrize("name", ["tpe", "random", "qmc"])
def test_samplers_build_by_name(name: str) -> None:
    assert isinstance(build_sampler(name, 0), optuna.samplers.BaseSampler)


def test_whoever_goes_on_with_a_study_draws_from_what_was_drawn(tmp_path: Path) -> None:
    """Numbers, parameters, states, values and constraints are in the storage as in memory."""
    ledger, _ = open_ledger(tmp_path, trials=6)
    ends = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.INFEASIBLE, TrialState.FAILED)
    for number, state in enumerate(ends):
        ledger.ask()
        ledger.report(number, 1, row(1.0 + number), {})
        ledger.end(number, state)
    ledger.ask()
    here, there = ledger._optuna.trials, stored_trials(ledger.folder)
    again, _ = open_ledger(tmp_path)
    for trials in (there, again._optuna.trials):
        for mine, other in zip(here, trials, strict=True):
            assert (mine.number, mine.state, mine.params) == (
                other.number,
                other.state,
                other.params,
            )
            assert mine.distributions == other.distributions
            assert mine.intermediate_values == other.intermediate_values
            assert mine.system_attrs == other.system_attrs
            assert mine.values == other.values
    assert [trial.number for trial in there] == [0, 1, 2, 3, 4]


def test_an_observer_is_told_of_what_ended_just_before_a_kill(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    for number in range(3):
        ledger.ask()
        ledger.report(number, 1, row(1.0), {})
        ledger.trial_folder(number).weights_file.touch()
    for number in range(2):
        ledger.end(number, TrialState.COMPLETE)
    ledger.trial_folder(0).write_logits({})
    again, tracker = open_ledger(tmp_path)
    again.resend(tracker)
    assert {number: run.files for number, run in tracker.runs.items()} == {
        0: ("record.json", "logits.npz")
    }


@pytest.mark.parametrize("whose", ["trial", "study"])
def test_a_study_goes_on_once_what_cannot_be_read_is_moved_as_told(
    tmp_path: Path, whose: str
) -> None:
    """Its draw is tried again: Optuna still thinks that it runs."""
    ledger, _ = open_ledger(tmp_path)
    first, second = ledger.ask(), ledger.ask()
    assert first is not None and second is not None
    folder = ledger.folder
    files = {"trial": folder.trial(1).record_file, "study": folder.record_file}
    files[whose].write_bytes(files[whose].read_bytes()[:100])
    with pytest.raises(RecordError, match=r"can't be read \(.*\); move it"):
        _ = folder.record(), folder.records()
    if whose == "trial":
        folder.trial(1).path.rename(tmp_path / "moved")
    else:
        folder.record_file.rename(tmp_path / "moved")
    again, _ = open_ledger(tmp_path)
    asked = [record.params for _ in "12" if (record := again.ask())]
    assert asked == [first.params, second.params]


def test_a_storage_that_stops_answering_loses_nothing(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    ledger.ask()
    ledger.report(0, 1, row(1.0), {})
    file = ledger.folder.optuna_file
    kept = file.read_bytes()
    with closing(sqlite3.connect(file)) as other:
        other.execute("DROP TABLE trials")
    with pytest.raises(RecordError, match=r"stopped answering \(.*trials.*the same command goes"):
        ledger.end(0, TrialState.COMPLETE)
    file.write_bytes(kept)
    again, _ = open_ledger(tmp_path)
    record = again.ask()
    assert record is not None and (record.number, len(record.epochs)) == (0, 1)
