"""An ensemble that must answer in so many milliseconds, or fit so many megabytes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from shlex import quote

import numpy as np

from carray.ensemble.pool import Pool
from carray.ensemble.selection import SoftVote
from carray.errors import ConfigError, RecordError
from carray.predictions.averaging import TINY, WeightedAverage, best_alone
from carray.predictions.candidates import Candidate, Candidates
from carray.predictions.logits import SplitPredictions
from carray.predictions.network_costs import DEVICES, Device, NetworkCost, NetworkCosts
from carray.typing import Float32s, Rows

FEW = 12  # members of which every subset is tried: 4,095
RULE = "budget selection"


@dataclass(frozen=True)
class Budget:
    """What an ensemble may cost: its members' networks, one after the other, on one image."""

    milliseconds: float = math.inf
    mb: float = math.inf
    on: Device = "cpu"

    def holds(self, milliseconds: float, mb: float) -> bool:
        """Say whether so much is within."""
        return milliseconds <= self.milliseconds and mb <= self.mb

    def __str__(self) -> str:
        parts = [f"{self.milliseconds:g} ms on {self.on}"] * math.isfinite(self.milliseconds)
        parts += [f"{self.mb:g} MB"] * math.isfinite(self.mb)
        return " and ".join(parts)


@dataclass(frozen=True)
class BudgetedSelection:
    """The soft vote of the trials that lower the log-loss most within a budget.

    Of `FEW` trials or fewer every subset is tried. Of more, trials are added one by one, each the
    one that lowers the log-loss most per millisecond, and once more by the log-loss alone; the
    better of the two is taken. (Khuller et al., "The budgeted maximum coverage problem", 1999.)
    """

    costs: tuple[tuple[float, float], ...]
    """(milliseconds, megabytes) of each candidate."""
    budget: Budget
    name: str = RULE
    is_fitted: bool = True

    def fit(self, predictions: SplitPredictions, rows: Rows | None = None) -> WeightedAverage:
        """Return equal weights of the members chosen."""
        fits = [place for place, cost in enumerate(self.costs) if self.budget.holds(*cost)]
        p_MN = np.exp(predictions.true_log_p[fits])
        p_MN = p_MN if rows is None else p_MN[:, rows]
        costs = [self.costs[place] for place in fits]
        if len(fits) <= FEW:
            chosen = best_subset(p_MN, costs, self.budget)
        else:
            ways = (grow(p_MN, costs, self.budget, per_ms) for per_ms in (True, False))
            chosen = min(ways, key=lambda members: _loss(p_MN, members))
        return SoftVote(tuple(fits[place] for place in chosen)).fit(predictions, rows)


def best_subset(
    p_MN: Float32s, costs: Sequence[tuple[float, float]], budget: Budget
) -> tuple[int, ...]:
    """Return the members, of all subsets within the budget, whose mean has the least log-loss.

    `p_MN` holds each member's probability of the right class. At least one member must fit.
    """
    places = range(len(p_MN))
    subsets = chain.from_iterable(combinations(places, size) for size in range(1, len(p_MN) + 1))
    within = (own for own in subsets if budget.holds(*_cost(costs, own)))
    return min(within, key=lambda own: _loss(p_MN, own))


def grow(
    p_MN: Float32s, costs: Sequence[tuple[float, float]], budget: Budget, per_ms: bool
) -> tuple[int, ...]:
    """Return members added one by one from the best alone, as long as each lowers the log-loss."""
    pool = best_alone(p_MN)
    chosen: tuple[int, ...] = (pool[0],)
    loss = _loss(p_MN, chosen)
    if per_ms:  # a cheap beginning leaves room
        chosen = (min(pool, key=lambda place: _loss(p_MN, (place,)) * costs[place][0]),)
        loss = _loss(p_MN, chosen)
    while True:
        more = [(*chosen, place) for place in pool if place not in chosen]
        more = [own for own in more if budget.holds(*_cost(costs, own))]
        gains = {own: loss - _loss(p_MN, own) for own in more}
        gains = {own: gain for own, gain in gains.items() if gain > 0}
        if not gains:
            return chosen
        chosen = max(gains, key=lambda own: gains[own] / (costs[own[-1]][0] if per_ms else 1.0))
        loss = _loss(p_MN, chosen)


def _loss(p_MN: Float32s, members: Sequence[int]) -> float:
    return float(-np.log(np.maximum(p_MN[list(members)].mean(axis=0), TINY)).mean())


def _cost(costs: Sequence[tuple[float, float]], members: Sequence[int]) -> tuple[float, float]:
    milliseconds, mb = zip(*(costs[place] for place in members), strict=True)
    return sum(milliseconds), sum(mb)


@dataclass(frozen=True)
class MeasuredPool:
    """The trials of a pool that fit a budget by themselves, and what each costs."""

    pool: Pool
    budget: Budget
    costs: dict[str, tuple[float, float]]
    """Trial -> (milliseconds, megabytes)."""
    hardware: str

    @classmethod
    def of(cls, pool: Pool, known: Sequence[NetworkCosts], budget: Budget) -> MeasuredPool:
        """Leave out what is too slow or too large alone.

        Raises:
            RecordError: nothing is left; the quickest trial is told.
        """
        found = {trial.record.name: _found(trial, known, budget) for trial in pool.singles.trials}
        costs = {name: (cost.milliseconds, cost.mb) for name, cost in found.items()}

        def fitting(candidates: Candidates) -> Candidates:
            trials = candidates.trials
            kept = (one for one in trials if budget.holds(*costs[one.record.name]))
            return replace(candidates, trials=tuple(kept))

        own = replace(pool, candidates=fitting(pool.candidates), singles=fitting(pool.singles))
        if not own.candidates.trials:
            name, (milliseconds, mb) = min(costs.items(), key=lambda item: item[1])
            raise RecordError(
                f"no trial is within {budget}: the quickest, {name}, takes {milliseconds:.1f} ms "
                f"and {mb:.1f} MB; allow more, or search among smaller backbones"
            )
        return cls(own, budget, costs, next(iter(found.values())).hardware)

    def rule(self, budget: Budget | None = None) -> BudgetedSelection:
        """Return the rule that chooses among the pool's candidates."""
        trials = self.pool.candidates.trials
        costs = tuple(self.costs[trial.record.name] for trial in trials)
        return BudgetedSelection(costs, budget or self.budget)

    def cost(self, trials: Sequence[str]) -> tuple[float, float]:
        """Return the milliseconds and megabytes of some trials together."""
        milliseconds, mb = zip(*(self.costs[name] for name in trials), strict=True)
        return sum(milliseconds), sum(mb)


def _found(trial: Candidate, known: Sequence[NetworkCosts], budget: Budget) -> NetworkCost:
    config = trial.record.config
    cost = next(filter(None, (costs.find(config, budget.on) for costs in known)), None)
    if cost is None:
        raise RecordError(
            f"trial {trial.record.name} ({config.backbone}, {config.image_size} px) wasn't timed "
            f"on {budget.on}: carray bench {quote(trial.record.study)} --on {budget.on}"
        )
    return cost


def parse_budget(max_latency: str | None, max_size: str | None, on: str) -> Budget | None:
    """Return the budget that options ask for, as `15ms` and `200MB`; None where they don't.

    Raises:
        ConfigError: one can't be read.
    """
    device = checked_device(on)
    if max_latency is None and max_size is None:
        return None
    return Budget(
        _amount("--max-latency", max_latency, {"ms": 1.0, "s": 1000.0}, "15ms"),
        _amount("--max-size", max_size, {"MB": 1.0, "GB": 1000.0}, "200MB"),
        device,
    )


def checked_device(on: str) -> Device:
    """Return a device by its name; raises ConfigError where it is none."""
    found = next((device for device in DEVICES if device == on), None)
    if found is None:
        raise ConfigError(f"--on {on!r} must be {' or '.join(DEVICES)}")
    return found


def _amount(option: str, text: str | None, units: dict[str, float], example: str) -> float:
    if text is None:
        return math.inf
    found = re.fullmatch(rf"(\d+\.?\d*|\.\d+)\s*({'|'.join(units)})", text.strip())
    if not found or float(found[1]) <= 0:
        raise ConfigError(f"{option} {text!r} must be a number with its unit, as in {example}")
    return float(found[1]) * units[found[2]]
