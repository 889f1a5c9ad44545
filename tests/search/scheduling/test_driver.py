"""The driver: what goes wrong inside Tune and in threads comes out as it was."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.error import TuneError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from carray.config import TrialConfig
from carray.errors import DiskError
from carray.lanes.messages import Answer
from carray.metrics import VAL_LOG_LOSS
from carray.records import TrialRecord, TrialState
from carray.search.ledger import INTERRUPTED
from carray.search.scheduling.driver import SURPASSED, TIME_BUDGET, Driver, LedgerSearcher
from carray.search.scheduling.trainable import REASON, STATE
from tests.search.test_ledger import open_ledger, row

CONFIG = TrialConfig()


def no_space_left(*words: object) -> None:
    raise OSError(28, "No space left on device")


class FullDisk:
    """A ledger that can write nothing."""

    study = SimpleNamespace(metric=VAL_LOG_LOSS)
    ask = trial_folder = staticmethod(no_space_left)

    def missing_logits(self) -> list[TrialRecord]:
        return []


class TellingText:
    """Tune, which draws a trial and tells of whatever that raises by its traceback's text."""

    def __init__(self, trainable: Any, tune_config: Any, run_config: Any) -> None:
        self._search = tune_config.search_alg

    def fit(self) -> None:
        try:
            self._search.suggest("1")
        except Exception as error:
            text = str(error)
        raise TuneError(text)


def test_a_full_disk_is_told_as_such_by_tune_and_by_refits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "Tuner", TellingText)
    lanes: Any = SimpleNamespace(num_lanes=1)
    ledger: Any = FullDisk()
    with pytest.raises(OSError, match="No space left on device"):
        Driver(ledger, lanes, tmp_path, no_space_left).search(FIFOScheduler(), None, tmp_path)
    record = TrialRecord(study="s", number=0, config=TrialConfig())
    with pytest.raises(OSError, match="No space left on device"):
        Driver(ledger, lanes, tmp_path, no_space_left).refit([record])


FULL = "the disk of runs is full (0 MiB of 9 GiB free): free some"


class FakeLanes:
    """Lanes that answer every order at once; keeps the orders."""

    num_lanes, mailbox = 1, None

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.kinds: list[str] = []
        self.failed = threading.Event()

    def call(self, order: Any) -> Any:
        self.kinds.append(order.kind)
        future: Future[Answer] = Future()
        future.set_result(self._answer)
        return SimpleNamespace(future=lambda: future)

    def fail(self, reason: str) -> None:
        self.failed.set()


class ToldOf:
    """Tune, for which a trial's last result is always the same."""

    result: dict[str, Any]

    def __init__(self, trainable: Any, tune_config: Any, run_config: Any) -> None:
        self._search = tune_config.search_alg

    def fit(self) -> None:
        while self._search.suggest("1") != Searcher.FINISHED:
            number = self._search.searcher.numbers["1"]
            self._search.searcher._driver.ledger.report(number, 1, row(1.0), {})
            self._search.on_trial_complete("1", self.result)


@pytest.mark.parametrize("where", ["epoch", "finish", "refit"])
def test_a_lanes_full_disk_ends_the_search_and_leaves_every_trial_to_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The first trial meets it; the three others are not even begun."""
    ending = (TrialState.RUNNING, FULL) if where == "epoch" else (TrialState.COMPLETE, "")
    monkeypatch.setattr(ToldOf, "result", dict(zip((STATE, REASON), ending, strict=True)), False)
    monkeypatch.setattr(tune, "Tuner", ToldOf)
    ledger, tracker = open_ledger(tmp_path)
    lanes: Any = FakeLanes(Answer(reason=FULL))
    driver = Driver(ledger, lanes, tmp_path, no_space_left)
    with pytest.raises(DiskError, match="9 GiB free"):
        if where == "refit":
            monkeypatch.setattr(ray, "get", lambda reference: reference.future().result())
            driver.refit([ledger.open_refit(TrialRecord(study="s", number=9, config=CONFIG), 1)])
        else:
            driver.search(FIFOScheduler(), None, tmp_path)
    assert lanes.failed.wait(10)
    assert len(lanes.kinds) == (where != "epoch")
    (record,) = open_ledger(tmp_path)[0].folder.records()
    assert record.state == ending[0] if where != "refit" else record.state == "running"
    assert [run.files for run in tracker.runs.values()] == [()]  # nothing left as if it had ended


def test_a_trial_whose_logits_could_not_be_made_is_named(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    lanes: Any = FakeLanes(Answer("infeasible", "asks for more memory than there is"))
    driver = Driver(ledger, lanes, tmp_path, str)
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
    tmp_path: Path, stopped: str, state: str, error: bool
) -> None:
    ledger, _ = open_ledger(tmp_path)
    lanes: Any = FakeLanes(Answer())
    search = LedgerSearcher(Driver(ledger, lanes, tmp_path, str))
    search.suggest("1")
    ledger.stopped = stopped
    search.on_trial_complete("1", {}, error=error)
    assert ledger.record(0).state == ("failed" if error and state == "pruned" else state)


def test_what_nobody_asks_for_any_more_ends_with_what_it_has(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    refit = ledger.open_refit(TrialRecord(study="s", number=9, config=CONFIG), 6)
    ledger.report(refit.number, 1, row(1.0), {})
    lanes: Any = FakeLanes(Answer())
    Driver(ledger, lanes, tmp_path, str).give_up([refit])
    assert lanes.kinds == ["finish"]
    ended = ledger.record(refit.number)
    assert (ended.state, ended.reason) == (TrialState.PRUNED, SURPASSED)
