"""Ray Tune at work on a study: its searcher asks the ledger, its callback tells it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.error import TuneError
from ray.tune.schedulers import HyperBandScheduler, TrialScheduler
from ray.tune.search import Searcher

from carray.records import TrialRecord, TrialState
from carray.search.ledger import INTERRUPTED, Ledger
from carray.search.scheduling.driver import PROCESSES_DIE, Driver
from carray.search.scheduling.hopeless import HopelessRule
from carray.search.scheduling.time_plan import Reserved
from carray.search.scheduling.trainable import (
    EPOCH,
    FACTS,
    NETWORK_COST,
    REASON,
    ROW,
    STATE,
    LaneTrainable,
)
from carray.search.scheduling.trial_host import hosted_trials

MAX_TRAINABLE_DEATHS = 3  # deaths of its process before a thin trial counts as failed
PENDING = "TUNE_MAX_PENDING_TRIALS_PG"
"""Trials whose actors Tune asks for before they run: with its one of a searcher's trials, a hundred
actors come up one after the other, and of several that end together all but one are let go."""


def run_search(
    driver: Driver,
    scheduler: TrialScheduler,
    deadline: float | None,
    storage: Path,
    reserved: Reserved = lambda pace, soon: 0.0,
    hopeless: HopelessRule | None = None,
) -> None:
    """Run Tune until the ledger opens no more trials and those opened have ended.

    `reserved` says how many seconds before the deadline are kept for what comes after; `hopeless`
    ends trials whatever the scheduler thinks.
    """
    driver.begin(deadline, reserved, hopeless, isinstance(scheduler, HyperBandScheduler))
    first = driver.ask()
    if first is None:  # Tune can't store a run without trials
        driver.wait_finished()
        driver.raise_captured()
        return
    searcher = LedgerSearcher(driver, first)
    tuner = tune.Tuner(
        LaneTrainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(storage),
            callbacks=[LedgerCallback(driver)],
            stop=EarlyEnds(driver, searcher.numbers),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=MAX_TRAINABLE_DEATHS),
            verbose=0,
        ),
    )
    os.environ[PENDING] = str(driver.lanes.num_lanes)
    try:
        with hosted_trials(LaneTrainable):
            tuner.fit()
    except TuneError:
        driver.raise_captured()
        raise
    driver.wait_finished()
    driver.raise_captured()


class LedgerSearcher(Searcher):  # type: ignore[misc]
    """Tune's view of the ledger: it draws, and is told how trials end; `first` is open already."""

    def __init__(self, driver: Driver, first: TrialRecord | None = None) -> None:
        super().__init__(metric=driver.ledger.study.metric, mode=None)
        self._driver = driver
        self._first = first
        self.numbers: dict[str, int] = {}
        self._dead_in_a_row = 0  # trials whose processes died for good

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Open a trial; None while every lane has one, FINISHED once the ledger opens no more."""
        if len(self.numbers) >= self._driver.trials_at_once():
            return None
        record, self._first = self._first or self._driver.ask(), None
        if record is None:
            return str(Searcher.FINISHED)
        self.numbers[trial_id] = record.number
        job = self._driver.order(record, 1)
        return {
            "job": job.model_dump_json(),  # a dict would be flattened and copied
            "number": record.number,
            "mailbox": self._driver.lanes.mailbox,
            "metric": self.metric,
            NETWORK_COST: record.network_cost,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Close the trial: complete, pruned, failed or infeasible."""
        number = self.numbers.pop(trial_id)
        ledger = self._driver.ledger
        epochs_done = len(ledger.record(number).epochs)
        early = self._driver.early_ends.pop(number, "")
        dead = self._dead_in_a_row = self._dead_in_a_row + 1 if error else 0
        state, reason = _trial_end(result or {}, dead, ledger, epochs_done, early)
        if state is TrialState.RUNNING:
            self._driver.abort(reason)
        else:
            self._driver.end(number, state, reason)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the truth."""


def _trial_end(
    result: dict[str, Any], dead: int, ledger: Ledger, epochs_done: int, early: str
) -> tuple[TrialState, str]:
    if STATE not in result and ledger.is_halted:
        return TrialState.RUNNING, INTERRUPTED
    if dead > 1:  # no trial trains in its own process: this is the machinery's
        return TrialState.RUNNING, PROCESSES_DIE
    if dead:
        return TrialState.FAILED, f"its trial process died {MAX_TRAINABLE_DEATHS + 1} times"
    if STATE in result:
        return TrialState(result[STATE]), str(result.get(REASON, ""))
    return TrialState.PRUNED, early or f"{ledger.study.scheduler} after epoch {epochs_done}"


class LedgerCallback(tune.Callback):  # type: ignore[misc]
    """Takes every result into the ledger, those of stopped trials too."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Report one epoch."""
        facts, measured = dict(result.get(FACTS, ())), dict(result.get(ROW, ()))
        if not facts:
            return  # told by an earlier call, or no epoch at all
        if result[EPOCH] == 1:
            self._driver.note_wait(facts["lane"], facts["lane_waited_seconds"])
        row = {name: float(value) for name, value in measured.items()}
        number, epoch = trial.config["number"], int(result[EPOCH])
        with self._driver.capturing_errors():
            self._driver.ledger.report(number, epoch, row, self._driver.facts(facts))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Drop what Tune would keep of an ended trial: averages of numbers, some 50 KB."""
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()

    on_trial_error = on_trial_complete


class EarlyEnds(tune.Stopper):  # type: ignore[misc]
    """Ends trials after an epoch where the study is stopped or the budget has no room for more."""

    def __init__(self, driver: Driver, numbers: dict[str, int]) -> None:
        self._driver = driver
        self._numbers = numbers  # by Tune's ids

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Say whether a trial ends after this epoch."""
        record = self._driver.ledger.record(self._numbers[trial_id])
        facts = dict(result.get(FACTS, ()))
        if facts:  # not yet in the ledger, which is told after this
            record = record.model_copy(update={"epochs": (*record.epochs, dict(result[ROW]))})
            self._driver.note_epoch(record, time.time() - facts["asked_at"])
        if STATE in result:
            return False
        why = self._driver.early_end(record, is_new=bool(facts))
        if why:
            self._driver.early_ends[record.number] = why
        return bool(why)

    def stop_all(self) -> bool:
        """Never end them all at once: the ledger opens no more."""
        return False
