"""Weighted averages of members' probabilities, logits or votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from carray.predictions.logits import SplitPredictions, log_softmax
from carray.typing import Float32s, Rows

TINY = np.finfo(np.float32).tiny
GREEDY_ROUNDS = 50
GREEDY_PATIENCE = 5  # rounds without a better log-loss
POOL = 50  # of many members, those that the greedy ones are picked from: the best alone
AverageOf = Literal["probability", "logit", "vote", "stack"]


@dataclass(frozen=True)
class Stack:
    """Logits that are sums of members' log-probabilities, each class with weights of its own."""

    scales: tuple[tuple[float, ...], ...]
    """Of each class's log-probability by each member, (members, classes)."""
    offsets: tuple[float, ...]
    """What each class's logit is besides."""

    def widened(self, classes: int) -> Stack:
        """Return the stack for further classes, which a member's mean weight is given to."""
        more = classes - len(self.offsets)
        scales = tuple((*own, *[sum(own) / len(own)] * more) for own in self.scales)
        return Stack(scales, (*self.offsets, *[0.0] * more))


@dataclass(frozen=True)
class WeightedAverage:
    """A weighted mean of members' probabilities, logits or votes; weights add up to one.

    Of a `stack` the weights say what part of it each member is. Members are numbers into the
    candidates that it was fitted on.
    """

    members: tuple[int, ...]
    weights: tuple[float, ...]
    space: AverageOf = "probability"
    temperature: float = 1.0
    stack: Stack | None = None

    def log_p(self, predictions: SplitPredictions, rows: Rows | None = None) -> Float32s:
        """Return log-probabilities, (images, classes), of all images or of `rows`."""
        picked = slice(None) if rows is None else rows
        combined = self.merged([predictions.log_p(member)[picked] for member in self.members])
        return combined if self.temperature == 1.0 else log_softmax(combined / self.temperature)

    def merged(self, log_ps: Sequence[Float32s]) -> Float32s:
        """Return the mean of each member's log-probabilities (N, C), at temperature 1."""
        if self.stack:
            arrays = (self.stack.scales, self.stack.offsets)
            return log_softmax(stacked(log_ps, *(np.asarray(a, np.float32) for a in arrays)))
        return average_log_p(log_ps, self.weights, self.space)

    def with_temperature(self, temperature: float) -> WeightedAverage:
        """Return the blend with another temperature."""
        return replace(self, temperature=temperature)


def average_log_p(
    log_ps: Sequence[Float32s], weights: Sequence[float], space: AverageOf
) -> Float32s:
    """Return the weighted mean of log-probabilities, each (N, C), as log-probabilities.

    Of votes, each for a member's likeliest class, the mean of probabilities is one more: it parts
    ties, and leaves no class without any.
    """
    if len(log_ps) == 1:
        return log_ps[0]
    if space == "vote":
        return _voted(log_ps, weights)
    total = np.zeros_like(log_ps[0])
    for log_p, weight in zip(log_ps, weights, strict=True):
        total += np.float32(weight) * (np.exp(log_p) if space == "probability" else log_p)
    if space == "logit":
        return log_softmax(total)
    return np.log(np.maximum(total, TINY, out=total), out=total)


def stacked(
    log_ps: Sequence[Float32s] | Float32s, scale_MC: Float32s, offset_C: Float32s
) -> Float32s:
    """Return the sums of a `Stack`, (images, classes), of members' log-probabilities."""
    total = np.tile(offset_C, (len(log_ps[0]), 1))
    for log_p, scale_C in zip(log_ps, scale_MC, strict=True):
        total += scale_C * log_p
    return total


def _voted(log_ps: Sequence[Float32s], weights: Sequence[float]) -> Float32s:
    total = np.exp(average_log_p(log_ps, weights, "probability"))
    images = np.arange(len(total))
    for log_p, weight in zip(log_ps, weights, strict=True):
        total[images, log_p.argmax(axis=1)] += np.float32(weight * len(log_ps))
    return np.log(np.maximum(total / np.float32(len(log_ps) + 1), TINY))


def pick_greedily(p_MN: Float32s, first: Sequence[int] = ()) -> list[int]:
    """Return the members picked, in order, repeats included; never empty.

    Each round adds the member that lowers the log-loss of the mean most; rounds end when none
    has helped for `GREEDY_PATIENCE` rounds, and the best prefix is returned, no shorter than
    `first`, the members that it begins with.
    """
    p_MN = np.maximum(p_MN, TINY)
    picks = list(first)
    total_N = p_MN[picks].sum(axis=0)
    losses = [np.inf] * (len(picks) - 1)
    losses += [float(-np.log(total_N / np.float32(len(picks))).mean())] if picks else []
    for size in range(len(picks) + 1, GREEDY_ROUNDS + 1):
        losses_M = -np.log((total_N + p_MN) / np.float32(size)).mean(axis=1)
        picks.append(int(losses_M.argmin()))
        losses.append(float(losses_M[picks[-1]]))
        total_N += p_MN[picks[-1]]
        if size - 1 - int(np.argmin(losses)) >= GREEDY_PATIENCE:
            break
    return picks[: int(np.argmin(losses)) + 1]


def best_alone(p_MN: Float32s, most: int = POOL) -> list[int]:
    """Return the members of the lowest log-loss, the best first."""
    losses_M = -np.log(np.maximum(p_MN, TINY)).mean(axis=1)
    return [int(member) for member in np.argsort(losses_M, kind="stable")[:most]]


def pick_from_best(p_MN: Float32s) -> list[int]:
    """Pick greedily from the `POOL` members that are best alone: more cost more, and add little."""
    best = best_alone(p_MN)
    return [best[pick] for pick in pick_greedily(p_MN[best])]
