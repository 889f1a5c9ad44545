"""Ends a trial that, by the curves of the study's complete trials, can't come near the best."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import accumulate

from carray.config import TrialConfig
from carray.metrics import Objective
from carray.predictions.network_costs import is_as_cheap
from carray.records import TrialRecord, TrialState

LEAST_EPOCHS = 2
LEAST_SHARE = 0.25  # of a trial's epochs, before which none is ended
TIMES = 2  # as much as the complete trial that improved most from there on
MARGIN = 0.2  # over the loss of the best trial

NetworkCost = Mapping[str, float]  # `TrialRecord.network_cost`
FREE: NetworkCost = {}


class HopelessRule:
    """Learns whole curves, and says of a beginning that it leads nowhere.

    A trial is hopeless if it wouldn't come within 20 % of the best complete trial's loss even if it
    improved, as a ratio and from its best epoch so far, twice as much as the complete trial that
    improved most from that epoch on. It needs one complete trial of a curve of the same kind, and a
    quarter of the trial's epochs. Unlike ranks, which settle late in a short training, so large a
    distance tells early.

    Chosen on 26 trainings of 10 and 12 epochs and 12 of LCBench's data sets; judged on 36 others of
    8 and 10 epochs, and 12 other data sets. Of the trials that it ended there, at most 0.5 % would
    have come within 5 % of the best (0.16 % of the real ones); it saved 21 to 38 % of LCBench's
    epochs, 24 % of a wide space's and 0.5 % where all trials were alike. See the README of
    tests/benchmarks.

    Where networks' costs are objectives too, the best complete trial is that of those which cost at
    most as much: a small network needn't come near a large one.
    """

    def __init__(
        self, metric: str, ended: Iterable[TrialRecord] = (), least_epochs: int = LEAST_EPOCHS
    ) -> None:
        self._objective = Objective(metric)
        self._least = least_epochs
        self._curves: dict[Hashable, list[list[float]]] = {}  # best so far, as losses
        self._ends: list[tuple[float, NetworkCost]] = []  # best losses, and what they cost
        for record in ended:
            self.learn_from(record)

    def learn(self, kind: Hashable, values: Sequence[float], cost: NetworkCost = FREE) -> None:
        """Learn the curve of a trial that was trained to its end."""
        curve = self._best_so_far(values)
        if curve and math.isfinite(curve[-1]):
            self._curves.setdefault(kind, []).append(curve)
            self._ends.append((curve[-1], cost))

    def is_hopeless(
        self, kind: Hashable, values: Sequence[float], epochs: int, cost: NetworkCost = FREE
    ) -> bool:
        """Say whether a trial of `epochs` epochs with these values so far is."""
        done = len(values)
        whole = [curve for curve in self._curves.get(kind, ()) if len(curve) > done]
        if not whole or not max(self._least, LEAST_SHARE * epochs) <= done < epochs:
            return False
        own = self._best_so_far(values)[-1]
        gain = min(c[-1] / c[done - 1] if 0 < c[done - 1] < math.inf else 0.0 for c in whole)
        best = min(
            (loss for loss, other in self._ends if is_as_cheap(other, cost)), default=math.inf
        )
        return math.isfinite(own) and own * gain**TIMES > (1 + MARGIN) * best

    def learn_from(self, record: TrialRecord) -> None:
        """Learn the curve of a search's trial, if it is complete."""
        if record.state is TrialState.COMPLETE:
            self.learn(_kind(record.config), self._values(record), record.network_cost)

    def ends(self, record: TrialRecord) -> bool:
        """Say whether a trial is hopeless."""
        kind, values = _kind(record.config), self._values(record)
        return self.is_hopeless(kind, values, record.config.epochs, record.network_cost)

    def _values(self, record: TrialRecord) -> list[float]:
        return [row.get(self._objective.metric, math.nan) for row in record.epochs]

    def _best_so_far(self, values: Sequence[float]) -> list[float]:
        """Return the best loss up to each epoch; a share's is what it lacks of one."""
        sign = self._objective.sign
        losses = [value if sign > 0 else 1.0 - value for value in values]
        return list(accumulate((x if math.isfinite(x) else math.inf for x in losses), min))


def _kind(config: TrialConfig) -> Hashable:
    """Return what gives a curve its form: trials that differ in it aren't compared."""
    schedule = config.schedule
    form = schedule.name, schedule.warmup_epochs, schedule.decay_epochs
    return config.epochs, config.pretrained, config.finetune, form
