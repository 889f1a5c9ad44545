"""A study on simulated lanes: the real samplers and schedulers, with an epoch for a clock tick.

It stands in for Tune's controller and carray's ledger: Optuna is told what `Ledger` tells it, and
the scheduler is called as Tune calls it. Only the training is looked up instead of done.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import HyperBandScheduler, TrialScheduler

from carray.errors import ConfigError
from carray.metrics import Objective
from carray.search.sampling.samplers import build_sampler
from carray.search.scheduling.hopeless import HopelessRule
from carray.search.scheduling.schedulers import build_scheduler
from carray.search.scheduling.trainable import EPOCH
from carray.search_benchmark.curves import CurveSource, Params
from carray.search_benchmark.methods import Method
from carray.typing import Float64s

HYPERBAND_AT_ONCE = 81  # trials that Hyperband has open, as in `carray.search.scheduling.driver`
SPEEDS = 0.3  # spread (of the logarithm) of how long an epoch takes, from trial to trial
BAD_DRAWS = 20


@dataclass(eq=False)
class SimTrial:
    """A trial as Tune's schedulers see one."""

    trial_id: str
    asked: optuna.Trial
    curve: Float64s = field(repr=False)  # Hyperband spells out its trials at every turn
    seconds: float
    status: str = TuneTrial.PENDING
    epochs_done: int = 0
    is_saving: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    last_result: dict[str, Any] = field(default_factory=dict)


class CurveCache:
    """Curves by their values, so that methods that draw the same point ask once."""

    def __init__(self, source: CurveSource) -> None:
        self._source = source
        self._known: dict[tuple[Any, ...], Float64s] = {}

    def curve(self, params: Params) -> Float64s:
        """Return one trial's curve, (epochs,)."""
        key = tuple(sorted(params.items()))
        if key not in self._known:
            self._known[key] = self._source.curves([params])[0]
        return self._known[key]


class SimulatedStudy:
    """One study by one method, until its budget of epochs is spent."""

    def __init__(
        self,
        source: CurveSource,
        method: Method,
        seed: int,
        *,
        budget_epochs: int,
        lanes: int = 4,
        starts: Sequence[Mapping[str, Any]] = (),
        cache: CurveCache | None = None,
    ) -> None:
        self._source = source
        self._cache = cache or CurveCache(source)
        self._sign = Objective(source.metric).sign
        self._budget = budget_epochs
        self._free_lanes = lanes
        self._scheduler = _scheduler(source, method)
        self._hopeless = HopelessRule(source.metric) if method.ends_hopeless else None
        hyperband = isinstance(self._scheduler, HyperBandScheduler)
        self._at_once = HYPERBAND_AT_ONCE if hyperband else lanes
        self._speeds = np.random.default_rng(seed)
        self._study = _optuna_study(source, method.sampler, seed, starts)
        self._live: list[SimTrial] = []
        self._waiting: deque[SimTrial] = deque()  # for a lane
        self._running: list[tuple[float, int, SimTrial]] = []  # heap by when the epoch ends
        self._now = 0.0
        self._begun = 0
        self._opened = 0
        self.seen: list[float] = []  # loss of every epoch, in the order they ended

    def run(self) -> Float64s:
        """Return the lowest loss seen after each epoch of the budget, (budget_epochs,)."""
        while len(self.seen) < self._budget:
            self._open_trials()
            self._take_lanes()
            self._now, _, trial = heapq.heappop(self._running)
            self._free_lanes += 1
            self._end_epoch(trial)
        best: Float64s = np.minimum.accumulate(np.array(self.seen))
        return best

    @property
    def optuna_trials(self) -> list[Any]:
        """Return what Optuna was told."""
        return list(self._study.get_trials(deepcopy=False))

    # The next two are what Tune's schedulers ask of its controller.
    def get_trials(self) -> list[SimTrial]:
        """Return the trials that haven't ended."""
        return list(self._live)

    get_live_trials = get_trials

    def stop_trial(self, trial: SimTrial) -> None:
        """End a trial early, as Tune's controller does."""
        if trial.status == TuneTrial.TERMINATED:
            return
        self._leave(trial)
        self._tell_stopped(trial)

    def _open_trials(self) -> None:
        while len(self._live) < self._at_once:
            trial = self._draw()
            self._live.append(trial)
            self._scheduler.on_trial_add(self, trial)
        while (trial := self._scheduler.choose_trial_to_run(self)) is not None:
            trial.status = TuneTrial.RUNNING
            self._waiting.append(trial)

    def _take_lanes(self) -> None:
        while self._free_lanes and self._waiting:
            self._free_lanes -= 1
            trial = self._waiting.popleft()
            self._begun += 1
            heapq.heappush(self._running, (self._now + trial.seconds, self._begun, trial))

    def _draw(self) -> SimTrial:
        for _ in range(BAD_DRAWS):
            drawn = self._study.ask()
            try:
                curve = self._cache.curve(self._source.draw(drawn))
            except ConfigError:
                self._study.tell(drawn, state=optuna.trial.TrialState.FAIL)
                continue
            self._opened += 1
            seconds = float(np.exp(SPEEDS * self._speeds.standard_normal()))
            return SimTrial(f"{self._opened:05d}", drawn, curve, seconds)
        raise ConfigError(f"{BAD_DRAWS} draws in a row gave no valid trial of {self._source.name}")

    def _end_epoch(self, trial: SimTrial) -> None:
        value = float(trial.curve[trial.epochs_done])
        trial.epochs_done += 1
        trial.last_result = {EPOCH: trial.epochs_done, self._source.metric: value}
        self.seen.append(self._sign * value)
        if trial.epochs_done == len(trial.curve):
            self._leave(trial)
            best = self._sign * float((self._sign * trial.curve).min())
            self._study.tell(trial.asked, best)
            if self._hopeless:
                self._hopeless.learn(None, [float(value) for value in trial.curve])
            return
        if self._is_hopeless(trial):
            self.stop_trial(trial)
            return
        decision = self._scheduler.on_trial_result(self, trial, trial.last_result)
        if decision == TrialScheduler.STOP:
            self.stop_trial(trial)
        elif decision == TrialScheduler.PAUSE:
            trial.status = TuneTrial.PAUSED
        else:
            self._waiting.append(trial)

    def _is_hopeless(self, trial: SimTrial) -> bool:
        seen = [float(value) for value in trial.curve[: trial.epochs_done]]
        return bool(self._hopeless and self._hopeless.is_hopeless(None, seen, len(trial.curve)))

    def _leave(self, trial: SimTrial) -> None:
        running = trial.status == TuneTrial.RUNNING
        if running:
            self._scheduler.on_trial_complete(self, trial, trial.last_result)
        else:
            self._scheduler.on_trial_remove(self, trial)
        trial.status = TuneTrial.TERMINATED
        self._live.remove(trial)

    def _tell_stopped(self, trial: SimTrial) -> None:
        """Tell Optuna as `Ledger` does: the best value, at the last epoch, and that it stopped."""
        seen = self._sign * trial.curve[: trial.epochs_done]
        best = self._sign * float(np.fmin.reduce(seen, initial=math.nan))
        if math.isfinite(best):
            trial.asked.report(best, step=trial.epochs_done)
        self._study.tell(trial.asked, state=optuna.trial.TrialState.PRUNED)


def _scheduler(source: CurveSource, method: Method) -> Any:
    logging.getLogger("ray.tune.schedulers.hyperband").setLevel(logging.WARNING)
    return build_scheduler(
        method.scheduler,
        metric=source.metric,
        direction=Objective(source.metric).direction,
        max_epochs=source.max_epochs,
        grace_epochs=method.grace_epochs,
        reduction_factor=method.reduction_factor,
    )


def _optuna_study(
    source: CurveSource, sampler: str, seed: int, starts: Sequence[Mapping[str, Any]]
) -> optuna.Study:
    study = optuna.create_study(
        direction=Objective(source.metric).direction,
        sampler=build_sampler(sampler, seed),
    )
    for point in starts:
        study.enqueue_trial(dict(point))
    return study
