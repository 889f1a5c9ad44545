"""Ray Tune's schedulers by name; they stop weak trials after some epochs.

A resumed study's scheduler is a fresh one that is told the records: Tune itself restores ASHA
with empty rungs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from carray.errors import ConfigError, did_you_mean
from carray.predictions.network_costs import is_as_cheap
from carray.records import TrialRecord
from carray.search.scheduling.trainable import EPOCH, NETWORK_COST

SCHEDULERS = ("asha", "median", "hyperband", "none")
DEFAULT_SCHEDULER = "asha"
DEFAULT_REDUCTION_FACTOR = 3
RUNG_STEP = 2  # from the epochs of one of ASHA's rungs to those of the next
SHORT_EPOCHS = 15
FEWEST_GRACE_EPOCHS = 5

Cutoff = Callable[[Any, Mapping[str, float]], Any]  # of a bracket and what its rung recorded


class Asha(AsyncHyperBandScheduler):  # type: ignore[misc]
    """Asynchronous successive halving (Li et al., MLSys 2020), its rungs rebuilt from records.

    Tune's judges a trial by its last epoch. While the learning rate is high that is mostly noise:
    over 32 fine-tunings of 20 epochs the loss after the fifth said next to nothing of the end (rank
    correlation 0.14), the lowest until then more (0.43). That is also what the trial keeps, so here
    a trial is judged by its best epoch so far.

    Tune's has rungs as far apart as they are strict: one trial of three goes on for three times as
    long. A sampler that learns draws ever better trials, which pass among all that came before; so
    here a trial is asked again after as many epochs more, and one of `reduction_factor` passes each
    time.

    Where a study's objectives are a metric and what a network costs, a trial is held against those
    that cost at most as much. So one that none of these beats goes on, however much better slower
    ones are: it may stand on the front in the end.
    """

    def __init__(self, *, reduction_factor: int, **options: Any) -> None:
        super().__init__(reduction_factor=RUNG_STEP, **options)
        for bracket in self._brackets:
            bracket.rf = reduction_factor
            bracket.cutoff = partial(self._cutoff_of, type(bracket).cutoff, bracket)
        self._network_costs: dict[str, Mapping[str, float]] = {}  # by trial; {}: one objective
        self._judged_cost: Mapping[str, float] = {}  # of the trial that is being judged
        self._best: dict[str, float] = {}  # of each running trial, higher is better

    @property
    def rungs(self) -> list[int]:
        """The epochs after which trials may be stopped, the first one first."""
        return sorted(int(epochs) for epochs, _ in self._brackets[0]._rungs)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Note what a trial's network costs."""
        super().on_trial_add(tune_controller, trial)
        self._network_costs[trial.trial_id] = trial.config.get(NETWORK_COST, {})

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Say whether a trial goes on."""
        self._judged_cost = self._network_costs[trial.trial_id]
        judged = self._judged(trial.trial_id, result)
        return str(super().on_trial_result(tune_controller, trial, judged))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Let a trial's end count at its rung."""
        super().on_trial_complete(tune_controller, trial, self._judged(trial.trial_id, result))
        self._best.pop(trial.trial_id, None)

    def remember(self, records: Iterable[TrialRecord]) -> None:
        """Fill the rungs with what trials of earlier calls reached."""
        for record in records:
            trial = SimpleNamespace(trial_id=record.name)
            self._network_costs[record.name] = record.network_cost
            for epoch, row in enumerate(record.epochs, start=1):
                if self._metric in row:
                    best = self._metric_op * self._judged(record.name, row)[self._metric]
                    self._brackets[0].on_result(trial, epoch, best)
            self._best.pop(record.name, None)

    def _cutoff_of(self, cutoff: Cutoff, bracket: Any, recorded: Mapping[str, float]) -> Any:
        costs, limit = self._network_costs, self._judged_cost
        as_cheap = {
            name: best for name, best in recorded.items() if is_as_cheap(costs[name], limit)
        }
        return cutoff(bracket, as_cheap)

    def _judged(self, trial_id: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return an epoch's numbers with the best so far for the metric, if they have it."""
        if self._metric not in row:
            return dict(row)
        value = self._metric_op * row[self._metric]
        best = self._best[trial_id] = float(np.fmax(value, self._best.get(trial_id, value)))
        return {**row, self._metric: self._metric_op * best}


class Median(MedianStoppingRule):  # type: ignore[misc]
    """Stops a trial below the median of the others' running averages at the same epoch.

    As with `Asha`, a trial is held against those whose networks cost at most as much.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._means: dict[tuple[Any, int, float], float] = {}
        self._judged_cost: Mapping[str, float] = {}  # of the trial that is being judged

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Say whether a trial goes on."""
        self._judged_cost = trial.config.get(NETWORK_COST, {})
        return str(super().on_trial_result(tune_controller, trial, result))

    def _trials_beyond_time(self, time: float) -> list[Any]:
        others, limit = super()._trials_beyond_time(time), self._judged_cost
        return [each for each in others if is_as_cheap(each.config.get(NETWORK_COST, {}), limit)]

    def _running_mean(self, trial: Any, time: float) -> float:
        """Remember each mean: the base takes those of all trials anew at every report."""
        key = (trial, len(self._results[trial]), time)
        if key not in self._means:
            self._means[key] = float(super()._running_mean(trial, time))
        return self._means[key]

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Leave out what a failed trial ends with: it has no metric, which the base needs."""
        if self._metric in result:
            super().on_trial_complete(tune_controller, trial, result)


def default_grace_epochs(max_epochs: int) -> int:
    """Return the epochs that every trial gets where nobody says.

    A short training ranks its trials only once the learning rate has fallen: the best of 40 was
    the last of them after 6 of 12 epochs. So one of fewer than `SHORT_EPOCHS` is never stopped for
    its rank (what is hopeless ends all the same, see `hopeless`), which led on recorded curves of
    five studies of 6 to 20 epochs. A longer one is stopped after a tenth of its epochs, as
    LCBench's curves say, but not before the fifth, where trainings from scratch still look like
    chance. On six other studies, of 6 to 30 epochs, mean regret is 0.25 so, 0.30 with a tenth for
    all lengths, and 0.26 without stopping.
    """
    if max_epochs < SHORT_EPOCHS:
        return max_epochs
    return max(FEWEST_GRACE_EPOCHS, round(max_epochs / 10))


def build_scheduler(
    name: str,
    *,
    metric: str,
    direction: str,
    max_epochs: int,
    grace_epochs: int = 1,
    reduction_factor: int = DEFAULT_REDUCTION_FACTOR,
    ended: Iterable[TrialRecord] = (),
) -> TrialScheduler:
    """Build the scheduler `name`; trials that have `ended` before take part in its cutoffs.

    Raises:
        ConfigError: there is none of that name, or a number is out of its range.
    """
    if grace_epochs < 1:
        raise ConfigError(f"--grace-epochs {grace_epochs} must be at least 1")
    if reduction_factor < 2:
        raise ConfigError(f"--reduction-factor {reduction_factor} must be at least 2")
    grace_epochs = min(grace_epochs, max_epochs)  # trials shorter than a space's own are all kept
    mode = "min" if direction == "minimize" else "max"
    if name == "none":
        return FIFOScheduler()
    if name == "median":
        return Median(
            time_attr=EPOCH,
            metric=metric,
            mode=mode,
            grace_period=grace_epochs,
            min_samples_required=3,
        )
    if name == "hyperband":
        return HyperBandScheduler(
            time_attr=EPOCH,
            metric=metric,
            mode=mode,
            max_t=max_epochs,
            reduction_factor=reduction_factor,
            stop_last_trials=False,
        )
    if name == "asha":
        # A trial ends at its last epoch by itself: ASHA's own stop there would call it pruned.
        asha = Asha(
            time_attr=EPOCH,
            metric=metric,
            mode=mode,
            max_t=max_epochs + 1,
            grace_period=grace_epochs,
            reduction_factor=reduction_factor,
        )
        asha.remember(ended)
        return asha
    hint = did_you_mean(name, SCHEDULERS)
    raise ConfigError(f"unknown scheduler {name!r}{hint} (there are {', '.join(SCHEDULERS)})")
