"""Weighted averages of members' probabilities or logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from carray.predictions.logits import Floats, Rows, SplitVotes, log_softmax

TINY = np.finfo(np.float32).tiny
Space = Literal["probability", "logit"]


@dataclass(frozen=True)
class Blend:
    """A weighted mean of members' probabilities, or of their logits; weights add up to one.

    Members are numbers into the candidates that it was fitted on.
    """

    members: tuple[int, ...]
    weights: tuple[float, ...]
    space: Space = "probability"
    temperature: float = 1.0

    def log_p(self, votes: SplitVotes, rows: Rows | None = None) -> Floats:
        """Return log-probabilities, (images, classes), of all images or of `rows`."""
        combined = combine(
            [_taken(votes.log_p(member), rows) for member in self.members],
            self.weights,
            self.space,
        )
        return combined if self.temperature == 1.0 else log_softmax(combined / self.temperature)

    def at(self, temperature: float) -> Blend:
        """Return the blend with another temperature."""
        return replace(self, temperature=temperature)


def combine(log_ps: Sequence[Floats], weights: Sequence[float], space: Space) -> Floats:
    """Return the weighted mean of log-probabilities, each (N, C), as log-probabilities."""
    if len(log_ps) == 1:
        return log_ps[0]
    total = np.zeros_like(log_ps[0])
    for log_p, weight in zip(log_ps, weights, strict=True):
        total += np.float32(weight) * (np.exp(log_p) if space == "probability" else log_p)
    if space == "logit":
        return log_softmax(total)
    return np.log(np.maximum(total, TINY, out=total), out=total)


def _taken(log_p: Floats, rows: Rows | None) -> Floats:
    return log_p if rows is None else log_p[rows]
