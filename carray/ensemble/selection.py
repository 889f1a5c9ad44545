"""Combination rules: soft vote, logit mean, fitted weights, greedy selection.

A rule is fitted to some images and returns a `WeightedAverage`; a blend combines anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from carray.predictions.averaging import TINY, WeightedAverage, pick_greedily
from carray.predictions.logits import SplitPredictions
from carray.typing import Float32s, Rows

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
class SoftVote:
    """The plain mean of probabilities."""

    members: tuple[int, ...]
    name: str = "soft vote"
    is_fitted: bool = False

    def fit(self, predictions: SplitPredictions, rows: Rows | None = None) -> WeightedAverage:
        """Return equal weights."""
        return WeightedAverage(self.members, _equal(len(self.members)))


@dataclass(frozen=True)
class LogitMean:
    """The plain mean of logits: a geometric mean of probabilities."""

    members: tuple[int, ...]
    name: str = "logit mean"
    is_fitted: bool = False

    def fit(self, predictions: SplitPredictions, rows: Rows | None = None) -> WeightedAverage:
        """Return equal weights."""
        return WeightedAverage(self.members, _equal(len(self.members)), "logit")


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
    """Greedy selection with replacement from a pool, the best prefix kept.

    Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
    """

    pool: tuple[int, ...]
    name: str = "greedy selection"
    is_fitted: bool = True

    def fit(self, predictions: SplitPredictions, rows: Rows | None = None) -> WeightedAverage:
        """Return weights that are counts over picks."""
        p_MN = np.exp(_image_columns(predictions.true_log_p[list(self.pool)], rows))
        picks = pick_greedily(p_MN)
        counts = np.bincount(picks, minlength=len(self.pool)) / len(picks)
        return _weighted_average(dict(zip(self.pool, counts.tolist(), strict=True)))


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


def _equal(count: int) -> tuple[float, ...]:
    return (1.0 / count,) * count


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
