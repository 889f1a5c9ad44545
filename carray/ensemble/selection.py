"""Combination rules: means and votes of some members, weights fitted to them, greedy selection.

A rule is fitted to some images and returns a `WeightedAverage`; a blend combines anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from carray.ensemble.stacking import Stacking
from carray.predictions.averaging import (
    TINY,
    AverageOf,
    WeightedAverage,
    best_alone,
    pick_from_best,
    pick_greedily,
)
from carray.predictions.logits import SplitPredictions
from carray.typing import Float32s, Rows

WIDE = 3  # times as many members of a wide rule
BAGS = 10
LEAST_SHARE = 0.02  # of a bagged member, whose cost would be a whole model's
EM_STEPS = 1000
EM_GAP = 1e-4  # nats: how far the fitted log-loss may be from the best possible


class Rule(Protocol):
    """A way to make a blend."""

    @property
    def name(self) -> str:
        """As tables and cards say it."""

    @property
    def is_fitted(self) -> bool:
        """Whether it looks at labels: then its score must come from images it wasn't fitted to."""

    def fit(self, predictions: SplitPredictions, rows: Rows | None = None) -> WeightedAverage:
        """Return the blend that suits these images best."""


@dataclass(frozen=True)
class _Equal:
    """All members alike."""

    members: tuple[int, ...]
    name: str = ""
    is_fitted: bool = False
    space: ClassVar[AverageOf] = "probability"

    def fit(self, predictions: SplitPredictions, rows: Rows | None = None) -> WeightedAverage:
        """Return equal weights."""
        share = 1.0 / len(self.members)
        return WeightedAverage(self.members, (share,) * len(self.members), self.space)


@dataclass(frozen=True)
class SoftVote(_Equal):
    """The plain mean of probabilities."""

    name: str = "soft vote"


@dataclass(frozen=True)
class LogitMean(_Equal):
    """The plain mean of logits: a geometric mean of probabilities."""

    name: str = "logit mean"
    space: ClassVar[AverageOf] = "logit"


@dataclass(frozen=True)
class HardVote(_Equal):
    """The class that most members name."""

    name: str = "hard vote"
    space: ClassVar[AverageOf] = "vote"


@dataclass(frozen=True)
class FittedWeights:
    """The weights on the simplex whose soft vote has the least log-loss."""

    members: tuple[int, ...]
    name: str = "fitted weights"
    is_fitted: bool = True

    def fit(self, predictions: SplitPredictions, rows: Rows | None = None) -> WeightedAverage:
        """Return the weights; members of no weight are dropped."""
        p_MN = np.exp(_image_columns(predictions.true_log_p[list(self.members)], rows)).astype(
            np.float64
        )
        weights = fit_simplex(p_MN)
        return _weighted_average(dict(zip(self.members, weights.tolist(), strict=True)))


@dataclass(frozen=True)
class Greedy:
    """Greedy selection with replacement from the best of a pool, the best prefix kept.

    Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
    """

    pool: tuple[int, ...]
    name: str = "greedy selection"
    is_fitted: bool = True

    def fit(self, predictions: SplitPredictions, rows: Rows | None = None) -> WeightedAverage:
        """Return weights that are counts over picks."""
        p_MN = np.exp(_image_columns(predictions.true_log_p[list(self.pool)], rows))
        picks = pick_from_best(p_MN)
        counts = np.bincount(picks, minlength=len(self.pool)) / len(picks)
        return _weighted_average(dict(zip(self.pool, counts.tolist(), strict=True)))


@dataclass(frozen=True)
class BaggedGreedy:
    """Greedy selection from several halves of the pool, begun with the best members, averaged.

    Caruana et al. 2004, sections 2.2 and 2.3: both guard against picking what suits these images
    by chance.
    """

    pool: tuple[int, ...]
    name: str = "bagged selection"
    is_fitted: bool = True

    def fit(self, predictions: SplitPredictions, rows: Rows | None = None) -> WeightedAverage:
        """Return weights that are mean shares of the bags' picks; small ones are dropped."""
        p_MN = np.exp(_image_columns(predictions.true_log_p[list(self.pool)], rows))
        ranked = best_alone(p_MN)  # so that bags don't depend on the pool's order
        rng, half = np.random.default_rng(0), -(-len(ranked) // 2)
        shares = np.zeros(len(ranked))
        for _ in range(BAGS):
            bag = np.sort(rng.choice(len(ranked), half, replace=False))
            p_BN = p_MN[[ranked[each] for each in bag]]
            picks = pick_greedily(p_BN, range(best_prefix(p_BN)))
            shares[bag] += np.bincount(picks, minlength=half) / len(picks) / BAGS
        shares[shares < LEAST_SHARE] = 0.0
        weights = (shares / shares.sum()).tolist()
        return _weighted_average({self.pool[m]: w for m, w in zip(ranked, weights, strict=True)})


USUAL = "wide stacking"
RULES = (
    *("soft vote", "logit mean", "hard vote", "fitted weights", "stacking"),
    *(USUAL, "greedy selection", "bagged selection"),
)


def all_rules(
    members: tuple[int, ...], more: tuple[int, ...], pool: tuple[int, ...]
) -> tuple[Rule, ...]:
    """Return every rule, in the order of `RULES`.

    They are over chosen members, over `WIDE` times as many, and over the whole pool.
    """
    own = (SoftVote, LogitMean, HardVote, FittedWeights, Stacking)
    wide = Stacking(more, USUAL)
    return *(kind(members) for kind in own), wide, Greedy(pool), BaggedGreedy(pool)


def best_prefix(p_MN: Float32s) -> int:
    """Return how many of the first members to average for the least log-loss."""
    sums_MN = np.cumsum(np.maximum(p_MN, TINY), axis=0)
    sizes_M1 = np.arange(1, len(p_MN) + 1, dtype=np.float32)[:, None]
    losses_M = -np.log(sums_MN / sizes_M1).mean(axis=1)
    return int(losses_M.argmin()) + 1


def fit_simplex(p_MN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the weights w on the simplex that minimise the mean of -log(w @ p), (M,).

    `p_MN` holds each member's probability of the right class. The problem is convex; the steps are
    those of expectation-maximisation for mixture weights, which never get worse, and the largest
    gradient bounds how far the optimum still is.
    """
    p_MN = np.maximum(p_MN, TINY)
    weights = np.full(len(p_MN), 1.0 / len(p_MN))
    for _ in range(EM_STEPS):
        gradient = (p_MN / (weights @ p_MN)).mean(axis=1)
        if gradient.max() - 1.0 < EM_GAP:
            break
        weights *= gradient
    weights[weights < 1e-3] = 0.0
    return np.asarray(weights / weights.sum(), np.float64)


def _weighted_average(weights: dict[int, float]) -> WeightedAverage:
    """Return the blend of the members that have any weight, heaviest first."""
    positive = sorted(
        ((member, weight) for member, weight in weights.items() if weight > 0),
        key=lambda pair: -pair[1],
    )
    return WeightedAverage(
        tuple(member for member, _ in positive), tuple(weight for _, weight in positive)
    )


def _image_columns(p_MN: Float32s, rows: Rows | None) -> Float32s:
    return p_MN if rows is None else p_MN[:, rows]
