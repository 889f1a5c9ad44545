"""The driver, on lanes of this process: how trials end, whatever goes wrong on the way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path

import pytest
from ray.tune.schedulers import FIFOScheduler

from carray.config import TrialConfig, build_config
from carray.costs import TIME_BUDGET
from carray.errors import (
    ClusterError,
    DataError,
    DiskError,
    TrialFailed,
    TrialInfeasible,
    UnsuitableData,
    WeightsError,
)
from carray.lanes.mailbox import MAX_ATTEMPTS
from carray.lanes.messages import Answer, LaneOrder
from carray.metrics import VAL_LOG_LOSS
from carray.records import TrialFolder, TrialRecord, TrialState
from carray.search.ledger import INTERRUPTED, Ledger
from carray.search.scheduling.driver import SURPASSED, Driver
from carray.search.scheduling.schedulers import build_scheduler
from carray.search.scheduling.tune_run import LedgerSearcher, run_search
from tests.lanes.fakes import WAIT_SECONDS, FakeLanes, LaneLost, epoch_row
from tests.search.studies import local_tune
from tests.search.test_ledger import open_ledger, optuna_trial, row

__all__ = ["local_tune"]
CONFIG = TrialConfig()
FULL = "the disk of runs has too little room (0 MiB of 9 GiB free): free some"
Begin = Callable[..., FakeLanes]


class PromptLanes(FakeLanes):
    """Lanes whose answer is there once an order is sent."""

    def call(self, order: LaneOrder) -> Future[Answer]:
        answer = super().call(order)
        assert wait([answer], WAIT_SECONDS).done
        return answer


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start lanes, which go when the test ends."""
    begun: list[FakeLanes] = []

    def start(num_lanes: int = 1, kind: type[FakeLanes] = PromptLanes) -> FakeLanes:
        begun.append(kind(num_lanes))
        begun[-1].start()
        return begun[-1]

    yield start
    for lanes in begun:
        lanes.stop(1.0)


def driver_of(ledger: Ledger, lanes: FakeLanes) -> Driver:
    return Driver(ledger, lanes, str(ledger.folder.path), str)


def search(ledger: Ledger, lanes: FakeLanes, deadline: float | None = None) -> Driver:
    driver = driver_of(ledger, lanes)
    run_search(driver, FIFOScheduler(), deadline, ledger.folder.cache)
    return driver


def endings(ledger: Ledger) -> list[tuple[str, int]]:
    return [(str(record.state), len(record.epochs)) for record in ledger.records]


def eventually(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_every_trial_is_trained_once_and_leaves_logits(
    tmp_path: Path, local_tune: None, begin: Begin
) -> None:
    ledger, tracker = open_ledger(tmp_path, trials=7)
    lanes = begin(2, FakeLanes)
    driver = search(ledger, lanes)
    assert endings(ledger) == [("complete", 3)] * 7
    assert sorted(lanes.faults.trained()) == [(n, e) for n in range(7) for e in (1, 2, 3)]
    assert all("logits.npz" in run.files for run in tracker.runs.values())
    assert driver.without_logits == []
    assert len(driver.lane_waits) == 5, "one a trial, but for each lane's first"


@pytest.mark.parametrize("name", ["asha", "median", "hyperband"])
def test_what_a_scheduler_stops_is_pruned_and_leaves_logits_too(
    tmp_path: Path, local_tune: None, begin: Begin, name: str
) -> None:
    ledger, tracker = open_ledger(tmp_path, trials=12)
    options = {"metric": VAL_LOG_LOSS, "direction": "minimize", "max_epochs": 3}
    scheduler = build_scheduler(name, grace_epochs=1, **options)  # type: ignore[arg-type]
    driver = driver_of(ledger, begin(2, FakeLanes))
    run_search(driver, scheduler, None, ledger.folder.cache)
    states = Counter(record.state for record in ledger.records)
    assert states["pruned"] > 0
    assert states["complete"] > 0
    assert states["pruned"] + states["complete"] == 12
    pruned = [record for record in ledger.records if record.state == "pruned"]
    assert all(r.reason == f"{ledger.study.scheduler} after epoch {len(r.epochs)}" for r in pruned)
    assert all(run.files == ("record.json", "logits.npz") for run in tracker.runs.values())


def full(*words: object, **names: object) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("written", ["write_record", "add_epoch"])
def test_a_full_disk_is_told_as_such_by_tune_and_by_refits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_tune: None, begin: Begin, written: str
) -> None:
    """At a trial's draw Tune lets it through; at an epoch's report it tells it as text."""
    ledger, _ = open_ledger(tmp_path)
    refit = ledger.open_refit(TrialRecord(study="s", number=9, config=CONFIG), 3)
    with monkeypatch.context() as patch:
        patch.setattr(TrialFolder, written, full)
        with pytest.raises(OSError, match="No space left on device"):
            search(ledger, begin())
        with pytest.raises(OSError, match="No space left on device"):
            driver_of(ledger, begin()).refit([refit])


@pytest.mark.parametrize("where", ["epoch", "finish", "refit"])
def test_a_lanes_full_disk_ends_the_search_and_leaves_every_trial_to_be_gone_on_with(
    tmp_path: Path, local_tune: None, begin: Begin, where: str
) -> None:
    """The first trial meets it; the three others are not even begun."""
    ledger, tracker = open_ledger(tmp_path)
    lanes = begin()
    lanes.faults.raises(DiskError(FULL), "finish" if where == "finish" else "epoch")
    driver = driver_of(ledger, lanes)
    with pytest.raises(DiskError, match="9 GiB free"):
        if where == "refit":
            driver.refit([ledger.open_refit(TrialRecord(study="s", number=9, config=CONFIG), 1)])
        else:
            run_search(driver, FIFOScheduler(), None, tmp_path)
    eventually(lambda: driver.lanes.call(LaneOrder("exit")).result().reason == INTERRUPTED)
    kinds = [order.kind for order in lanes.faults.orders]
    assert kinds == (["epoch"] * 3 + ["finish"] if where == "finish" else ["epoch"])
    (record,) = open_ledger(tmp_path)[0].folder.records()
    assert record.state == ("complete" if where == "finish" else "running")
    assert [run.files for run in tracker.runs.values()] == [()]  # nothing left as if it had ended


def test_a_lane_whose_node_lacks_something_hands_its_trial_on_and_leaves(
    tmp_path: Path, local_tune: None, begin: Begin
) -> None:
    ledger, _ = open_ledger(tmp_path)
    lanes = begin(3)
    lanes.faults.raises(DataError("the data folder /cars doesn't exist"), lane=0, times=99)
    lanes.faults.raises(WeightsError("no weights for backbone 'b3'"), lane=1, times=99)
    search(ledger, lanes)
    assert endings(ledger) == [("complete", 3)] * 4
    eventually(lambda: len(lanes.errors) == 2)
    assert str(lanes.errors[0]) == "the data folder /cars doesn't exist"
    assert str(lanes.errors[1]) == "no weights for backbone 'b3'"


@pytest.mark.parametrize(
    "error",
    [
        DataError("the data folder /cars doesn't exist"),
        RuntimeError("CUDA error: no CUDA-capable device is detected\nand more"),
    ],
)
def test_a_study_whose_last_lane_cannot_train_is_interrupted_and_no_trial_fails(
    tmp_path: Path, local_tune: None, begin: Begin, error: Exception
) -> None:
    ledger, _ = open_ledger(tmp_path)
    lanes = begin(2)
    lanes.faults.raises(error, trial=1, times=99)
    with pytest.raises(ClusterError, match=f"not done: no lane is left .*: {str(error)[:40]}"):
        search(ledger, lanes)
    assert ledger.record(1).state == "running"
    assert "failed" not in [record.state for record in ledger.records]


def test_data_that_suit_no_machine_fail_their_trial_alone(
    tmp_path: Path, local_tune: None, begin: Begin
) -> None:
    ledger, _ = open_ledger(tmp_path)
    lanes = begin(2)
    lanes.faults.raises(UnsuitableData("the pixel store is too large"), trial=1)
    search(ledger, lanes)
    assert endings(ledger) == [("complete", 3), ("failed", 0), *[("complete", 3)] * 2]
    assert not lanes.errors


def test_a_trial_that_runs_out_of_memory_is_infeasible_and_the_next_goes_on(
    tmp_path: Path, local_tune: None, begin: Begin
) -> None:
    ledger, _ = open_ledger(tmp_path)
    lanes = begin()
    lanes.faults.raises(TrialInfeasible("out of memory on cuda:0"), trial=1, epoch=2)
    search(ledger, lanes)
    assert endings(ledger) == [("complete", 3), ("infeasible", 1), *[("complete", 3)] * 2]
    assert ledger.record(1).reason == "out of memory on cuda:0"
    assert optuna_trial(ledger, 1).constraints == {"out of memory": 1.0}


def test_a_trial_that_fails_says_why_and_the_next_goes_on(
    tmp_path: Path, local_tune: None, begin: Begin
) -> None:
    ledger, _ = open_ledger(tmp_path)
    lanes = begin()
    lanes.faults.raises(TrialFailed("loss is nan at step=3"), trial=0, epoch=1)
    lanes.faults.raises(KeyError("x"), trial=2, epoch=3)
    search(ledger, lanes)
    assert endings(ledger) == [("failed", 0), ("complete", 3), ("failed", 2), ("complete", 3)]
    assert ledger.record(0).reason == "loss is nan at step=3"
    assert ledger.record(2).reason == "KeyError: 'x'"
    assert optuna_trial(ledger, 0).state.name == "FAIL"


def test_an_epoch_that_loses_its_lane_is_begun_again(
    tmp_path: Path, local_tune: None, begin: Begin
) -> None:
    ledger, _ = open_ledger(tmp_path)
    lanes = begin()
    lanes.faults.raises(LaneLost(), trial=1, epoch=2)
    search(ledger, lanes)
    assert endings(ledger) == [("complete", 3)] * 4
    assert Counter(lanes.faults.trained())[1, 2] == 2
    assert len(lanes.faults.trained()) == 13
    assert lanes.lives() == [2]


def test_an_epoch_that_loses_its_lane_each_time_fails_its_trial_alone(
    tmp_path: Path, local_tune: None, begin: Begin
) -> None:
    ledger, _ = open_ledger(tmp_path)
    lanes = begin()
    lanes.faults.raises(LaneLost(), trial=1, epoch=2, times=MAX_ATTEMPTS)
    search(ledger, lanes)
    assert endings(ledger) == [("complete", 3), ("failed", 1), *[("complete", 3)] * 2]
    assert ledger.record(1).reason.startswith("its epoch ended the worker group 2 times")


def test_a_trial_whose_process_dies_again_and_again_fails_and_the_next_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_tune: None, begin: Begin
) -> None:
    ledger, _ = open_ledger(tmp_path)
    lanes = begin()
    call = lanes.mailbox.call

    def dies(order: LaneOrder) -> Answer:
        if order.trial == "s/0001" and order.job and order.job.epoch == 2:
            raise RuntimeError("killed")
        return call(order)

    monkeypatch.setattr(lanes.mailbox, "call", dies)
    search(ledger, lanes)
    assert endings(ledger) == [("complete", 3), ("failed", 1), *[("complete", 3)] * 2]
    assert ledger.record(1).reason == "its trial process died 4 times"
    assert [len(ledger.record(1).epochs), Counter(lanes.faults.trained())[1, 1]] == [1, 4], (
        "each of its processes asks for the last epoch of its record, which the checkpoint answers"
    )


def test_processes_that_die_trial_after_trial_interrupt_the_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_tune: None, begin: Begin
) -> None:
    ledger, _ = open_ledger(tmp_path)
    lanes = begin()

    def dies(order: LaneOrder) -> Answer:
        raise RuntimeError("killed")

    monkeypatch.setattr(lanes.mailbox, "call", dies)
    with pytest.raises(ClusterError, match="own processes die, one trial's after the other's"):
        search(ledger, lanes)
    assert [record.state for record in ledger.records].count("failed") <= 1


def test_a_spent_time_budget_stops_what_runs_and_the_next_call_goes_on_with_it(
    tmp_path: Path, local_tune: None, begin: Begin
) -> None:
    ledger, _ = open_ledger(tmp_path)
    search(ledger, begin(), deadline=time.monotonic())
    assert endings(ledger) == [("pruned", 1)]
    assert ledger.record(0).reason == TIME_BUDGET
    late, _ = open_ledger(tmp_path)
    lanes = begin()
    driver = driver_of(late, lanes)
    run_search(driver, FIFOScheduler(), time.monotonic(), late.folder.cache)
    assert (late.stopped, lanes.faults.trained()) == (TIME_BUDGET, []), "no time for anything"
    again, tracker = open_ledger(tmp_path)
    search(again, lanes)
    assert endings(again) == [("complete", 3)] * 4
    assert lanes.faults.trained()[:3] == [(0, 1), (0, 2), (0, 3)], "the first by its checkpoint"
    assert "logits.npz" in tracker.runs[0].files


def test_a_budget_brings_what_goes_on_at_least_another_epoch(
    tmp_path: Path, local_tune: None, begin: Begin
) -> None:
    left, _ = open_ledger(tmp_path)
    assert left.ask()
    left.report(0, 1, row(1.0), {})
    ledger, _ = open_ledger(tmp_path)
    search(ledger, begin(), deadline=time.monotonic())
    assert endings(ledger) == [("pruned", 2)]


def test_a_search_that_goes_on_trains_what_is_missing_and_finishes_what_has_ended(
    tmp_path: Path, local_tune: None, begin: Begin
) -> None:
    """A call before had reported one trial's end and another's first two epochs.

    Of those a lane is asked for the second: its checkpoint is gone.
    """
    ledger, _ = open_ledger(tmp_path)
    for number, epochs in ((0, 3), (1, 2)):
        assert ledger.ask()
        for epoch in range(1, epochs + 1):
            ledger.report(number, epoch, row(1.0), {})
        ledger.trial_folder(number).weights_file.touch()
    ledger.end(0, TrialState.COMPLETE)
    again, tracker = open_ledger(tmp_path)
    lanes = begin()
    search(again, lanes)
    assert endings(again) == [("complete", 3)] * 4
    orders = [(o.kind, o.job.trial, o.job.epoch) for o in lanes.faults.orders[:2] if o.job]
    assert orders == [("finish", "s/0000", 3), ("epoch", "s/0001", 2)]
    assert all("logits.npz" in run.files for run in tracker.runs.values())


def test_a_trial_whose_logits_could_not_be_made_is_named(tmp_path: Path, begin: Begin) -> None:
    ledger, _ = open_ledger(tmp_path)
    lanes = begin()
    error = TrialInfeasible("asks for more memory than there is")
    lanes.faults.raises(error, "finish", times=2)
    driver = driver_of(ledger, lanes)
    asked = ledger.ask()
    assert asked is not None
    ledger.report(asked.number, 1, row(1.0), {})
    record = ledger.end(asked.number, TrialState.COMPLETE, "")
    driver.close(record)
    said = f"trial {record.name} left no logits: asks for more memory than there is"
    assert driver.without_logits == [said]
    ledger.trial_folder(record.number).weights_file.touch()
    driver.close(record)
    assert driver.without_logits[1] == f"{said}; the same command tries again"


@pytest.mark.parametrize(
    ("stopped", "state"), [(INTERRUPTED, "running"), ("any", "running"), (TIME_BUDGET, "pruned")]
)
@pytest.mark.parametrize("error", [False, True])
def test_only_the_time_budget_ends_trials_that_a_stopped_study_was_running(
    tmp_path: Path, begin: Begin, stopped: str, state: str, error: bool
) -> None:
    ledger, _ = open_ledger(tmp_path)
    searcher = LedgerSearcher(driver_of(ledger, begin()))
    searcher.suggest("1")
    ledger.stopped = stopped
    searcher.on_trial_complete("1", {}, error=error)
    assert ledger.record(0).state == ("failed" if error and state == "pruned" else state)


def test_refits_run_side_by_side_to_their_last_epoch(tmp_path: Path, begin: Begin) -> None:
    ledger, tracker = open_ledger(tmp_path)
    of = [TrialRecord(study="s", number=n, config=CONFIG) for n in (8, 9)]
    first, second = [ledger.open_refit(record, 5) for record in of]
    lanes = begin(2, FakeLanes)
    stall = lanes.faults.stalls(trial=first.number, epoch=1)
    lanes.faults.at(stall.go.set, trial=second.number, epoch=5)  # or the first waits for ever
    driver_of(ledger, lanes).refit([first, second])
    assert [(r.state, len(r.epochs)) for r in ledger.refits] == [("complete", 5)] * 2
    assert all("logits.npz" in run.files for run in tracker.runs.values())


def test_a_refit_is_asked_for_once_a_lane_is_free_for_it(tmp_path: Path, begin: Begin) -> None:
    ledger, _ = open_ledger(tmp_path)
    ended_before = []

    def opened() -> Iterator[TrialRecord]:
        for number in range(3):
            ended_before.append(sum(r.state.is_finished() for r in ledger.refits))
            yield ledger.open_refit(TrialRecord(study="s", number=number, config=CONFIG), 4)

    driver = driver_of(ledger, begin())
    driver.refit(opened())
    assert ended_before == [0, 1, 2]
    assert driver.pace.seconds(CONFIG, 4), "it learns how long epochs take"


@pytest.mark.parametrize("lr", [5e-3, 1.0])
def test_a_refit_killed_after_its_last_epoch_ends_as_that_epoch_says(
    tmp_path: Path, begin: Begin, lr: float
) -> None:
    """A learning rate of 1 collapses in the third epoch of four."""
    ledger, _ = open_ledger(tmp_path)
    config = build_config({"optimizer.lr": lr})
    refit = ledger.open_refit(TrialRecord(study="s", number=9, config=config), 4)
    state, last = (TrialState.COLLAPSED, 3) if lr == 1.0 else (TrialState.COMPLETE, 4)
    for epoch in range(1, last + 1):
        refit = ledger.report(refit.number, epoch, epoch_row(refit.config, epoch), {})
    ledger.trial_folder(refit.number).weights_file.touch()
    lanes = begin()
    driver_of(ledger, lanes).refit([refit])
    ended = ledger.record(refit.number)
    assert (ended.state, len(ended.epochs)) == (state, last)
    assert lanes.faults.trained() == [(refit.number, last)]
    assert ledger.trial_folder(refit.number).logits_file.exists()


def test_what_nobody_asks_for_any_more_ends_with_what_it_has(tmp_path: Path, begin: Begin) -> None:
    ledger, _ = open_ledger(tmp_path)
    refit = ledger.open_refit(TrialRecord(study="s", number=9, config=CONFIG), 6)
    ledger.report(refit.number, 1, row(1.0), {})
    ledger.trial_folder(refit.number).weights_file.touch()
    lanes = begin()
    driver_of(ledger, lanes).give_up([refit])
    assert [order.kind for order in lanes.faults.orders] == ["finish"]
    ended = ledger.record(refit.number)
    assert (ended.state, ended.reason) == (TrialState.PRUNED, SURPASSED)
    assert ledger.trial_folder(refit.number).logits_file.exists()
