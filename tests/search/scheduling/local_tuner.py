"""Tune in one process: real trainables in threads, under the real searcher and scheduler.

`LocalTuner` stands in `ray.tune.Tuner`'s place, and calls searcher, scheduler, stopper and
callbacks in `TuneController`'s order; what they raise comes out as it does there: as it is from a
draw, as a `TuneError` with the traceback's text from a result.
"""

from __future__ import annotations

import copy
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from ray.tune import Trainable
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

MOST_AT_ONCE = 64


class LocalTuner:
    """One experiment; `fit` returns when the searcher has finished and every trial has ended."""

    def __init__(self, trainable: type[Trainable], *, tune_config: Any, run_config: Any) -> None:
        self._trainable = trainable
        self._searcher: Searcher = tune_config.search_alg
        self._scheduler: TrialScheduler = tune_config.scheduler
        self._callbacks = run_config.callbacks
        self._stopper = run_config.stop
        self._max_failures: int = run_config.failure_config.max_failures
        self._has_finished = False
        self._trials: list[Trial] = []
        self._actors: dict[str, Trainable] = {}
        self._saved: dict[str, Any] = {}  # what paused trials go on from
        self._failures: dict[str, int] = {}
        self._pool = ThreadPoolExecutor(MOST_AT_ONCE)
        self._steps: dict[Future[dict[str, Any]], Trial] = {}

    def fit(self) -> None:
        """Run all trials."""
        try:
            while self._has_work():
                done, _ = wait(self._steps, return_when=FIRST_COMPLETED)
                for step in done:
                    self._take(self._steps.pop(step), step)
        finally:
            for actor in self._actors.values():
                actor.stop()
            self._pool.shutdown(wait=False, cancel_futures=True)

    # The next three are what Tune's schedulers ask of its controller.
    def get_trials(self) -> list[Trial]:
        """Return every trial."""
        return self._trials

    def get_live_trials(self) -> list[Trial]:
        """Return the trials that haven't ended."""
        return [trial for trial in self._trials if not trial.is_finished()]

    def stop_trial(self, trial: Trial) -> None:
        """End a trial, whatever it does."""
        try:
            self._stop(trial)
        except Exception:
            self._fail(trial)

    def _stop(self, trial: Trial) -> None:
        if trial.is_finished():
            return
        if trial.status == Trial.RUNNING:
            self._scheduler.on_trial_complete(self, trial, trial.last_result)
            self._searcher.on_trial_complete(trial.trial_id, result=trial.last_result)
        else:
            self._scheduler.on_trial_remove(self, trial)
            self._searcher.on_trial_complete(trial.trial_id)
        for callback in self._callbacks:
            callback.on_trial_complete(0, self._trials, trial)
        trial.set_status(Trial.TERMINATED)
        if actor := self._actors.pop(trial.trial_id, None):
            actor.stop()

    def _has_work(self) -> bool:
        """Draw and start trials; say whether any step is under way."""
        while self._has_drawn():
            pass
        while (trial := self._scheduler.choose_trial_to_run(self)) is not None:
            self._start(trial)
        return bool(self._steps)

    def _has_drawn(self) -> bool:
        trial_id = Trial.generate_id()
        config = None if self._has_finished else self._searcher.suggest(trial_id)
        if config == Searcher.FINISHED:
            self._has_finished = True
        if not isinstance(config, dict):
            return False
        config = copy.deepcopy(config)
        trial = Trial(self._trainable.__name__, stub=True, config=config, trial_id=trial_id)
        self._trials.append(trial)
        self._scheduler.on_trial_add(self, trial)
        return True

    def _start(self, trial: Trial) -> None:
        """Give a trial an actor, and have it step."""
        actor = self._trainable(config=copy.deepcopy(trial.config))
        if trial.trial_id in self._saved:
            actor.load_checkpoint(self._saved.pop(trial.trial_id))
        self._actors[trial.trial_id] = actor
        trial.set_status(Trial.RUNNING)
        self._step(trial)

    def _step(self, trial: Trial) -> None:
        self._steps[self._pool.submit(self._actors[trial.trial_id].train)] = trial

    def _take(self, trial: Trial, step: Future[dict[str, Any]]) -> None:
        """Take one result, or the trial's death."""
        try:
            if step.exception() is None:
                self._decide(trial, step.result())
            elif trial.status == Trial.RUNNING:
                self._recover(trial)
        except Exception:
            raise TuneError(traceback.format_exc()) from None

    def _decide(self, trial: Trial, result: dict[str, Any]) -> None:
        if trial.is_finished():
            return
        if self._stopper(trial.trial_id, result) or trial.should_stop(result):
            decision = TrialScheduler.STOP
            result["done"] = True
        else:
            decision = self._scheduler.on_trial_result(self, trial, result)
        if decision != TrialScheduler.STOP:
            self._searcher.on_trial_result(trial.trial_id, result)
        for callback in self._callbacks:
            callback.on_trial_result(0, self._trials, trial, result)
        trial.update_last_result(result)
        if decision == TrialScheduler.STOP:
            self.stop_trial(trial)
        elif decision == TrialScheduler.PAUSE:
            self._pause(trial)
        elif decision == TrialScheduler.CONTINUE:
            self._step(trial)

    def _pause(self, trial: Trial) -> None:
        actor = self._actors.pop(trial.trial_id)
        self._saved[trial.trial_id] = actor.save_checkpoint("")
        actor.stop()
        trial.set_status(Trial.PAUSED)

    def _recover(self, trial: Trial) -> None:
        """Begin a trial whose actor died again, unless that has happened too often."""
        self._actors.pop(trial.trial_id)
        failures = self._failures[trial.trial_id] = self._failures.get(trial.trial_id, 0) + 1
        if failures <= self._max_failures:
            self._start(trial)
        else:
            self._fail(trial)

    def _fail(self, trial: Trial) -> None:
        self._scheduler.on_trial_error(self, trial)
        self._searcher.on_trial_complete(trial.trial_id, error=True)
        trial.set_status(Trial.ERROR)
        for callback in self._callbacks:
            callback.on_trial_error(0, self._trials, trial)
