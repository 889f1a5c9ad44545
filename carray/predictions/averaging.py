"""Weighted averages of members' probabilities or logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from carray.predictions.logits import SplitPredictions, log_softmax
from carray.typing import Float32s, Rows

TINY = np.finfo(np.float32).tiny
AverageOf = Literal["probability", "logit"]


@dataclass(frozen=True)
class WeightedAverage:
    """A weighted mean of members' probabilities, or of their logits; weights add up to one.

    Members are numbers into the candidates that it was fitted on.
    """

    members: tuple[int, ...]
    weights: tuple[float, ...]
    space: AverageOf = "probability"
    temperature: float = 1.0

    def log_p(self, predictions: SplitPredictions, rows: Rows | None = None) -> Float32s:
        """Return log-probabilities, (images, classes), of all images or of `rows`."""
        combined = average_log_p(
            [_select_rows(predictions.log_p(member), rows) for member in self.members],
            self.weights,
            self.space,
        )
        return combined if self.temperature == 1.0 else log_softmax(combined / self.temperature)

    def with_temperature(self, temperature: float) -> WeightedAverage:
        """Return the blend with another temperature."""
        return replace(self, temperature=temperature)


def average_log_p(
    log_ps: Sequence[Float32s], weights: Sequence[float], space: AverageOf
) -> Float32s:
    """Return the weighted mean of log-probabilities, each (N, C), as log-probabilities."""
    if len(log_ps) == 1:
        return log_ps[0]
    total = np.zeros_like(log_ps[0])
    for log_p, weight in zip(log_ps, weights, strict=True):
        total += np.float32(weight) * (np.exp(log_p) if space == "probability" else log_p)
    if space == "logit":
        return log_softmax(total)
    return np.log(np.maximum(total, TINY, out=total), out=total)


def _select_rows(log_p: Float32s, rows: Rows | None) -> Float32s:
    return log_p if rows is None else log_p[rows]
