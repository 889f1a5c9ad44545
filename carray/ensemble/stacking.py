"""Stacking: a multinomial logistic regression on members' log-probabilities, with a ridge.

Wolpert, "Stacked generalization", Neural Networks 1992; Ting & Witten, "Issues in stacked
generalization", JAIR 1999, on logistic regression over members' class probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from carray.predictions.averaging import Stack, WeightedAverage, stacked
from carray.predictions.logits import SplitPredictions, log_softmax
from carray.predictions.scores import LOG_SCALE_SD
from carray.typing import Float32s, Float64s, Labels, Rows

MEAN_RIDGE = LOG_SCALE_SD**-2  # of how far the mean weights' sum is from 1
RIDGE = 300.0  # of what classes add to the mean weight; 100 fits noise to few images of many
MEMBER_RIDGE = 100.0  # of what members add; 1000 can't tell a weak one from a good one
NUMBERS = 2_000_000  # log-probabilities that a fit reads at most: of more images every so many-th
STEPS = 20  # of the optimiser
LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class Stacking:
    """Logits that are weighted sums of members' log-probabilities, each class with own weights.

    The weights' mean is all but free; by how much members differ from it is held near 0 by a ridge,
    and by how much classes do by a stronger one. So few images fit little more than a weight for
    each member, and where they are all right the mean doesn't grow without end.
    """

    members: tuple[int, ...]
    name: str = "stacking"
    is_fitted: bool = True

    def fit(self, predictions: SplitPredictions, rows: Rows | None = None) -> WeightedAverage:
        """Return the stack; its weights are the members' shares of it."""
        members = sorted(self.members)
        if len(members) == 1:
            return WeightedAverage((members[0],), (1.0,))
        predictions.preload(members)
        known = np.arange(len(predictions.labels)) if rows is None else rows
        classes = predictions.log_p(members[0]).shape[1]
        some = _some_rows(known, len(members) * classes)
        log_p_MNC = np.stack([predictions.log_p(member)[some] for member in members])
        share_M, stack = fit_stack(log_p_MNC, predictions.labels[some])
        return WeightedAverage(tuple(members), tuple(share_M.tolist()), "stack", stack=stack)


def fit_stack(
    log_p_MNC: Float32s,
    labels: Labels,
    ridge: float = RIDGE,
    member_ridge: float = MEMBER_RIDGE,
) -> tuple[Float64s, Stack]:
    """Return each member's share of the weights, (M,), and the stack that suits `labels` best.

    It has the least sum over images of the log-loss, plus half of `member_ridge` times the squares
    of what members add to the mean weight, of `ridge` times those of what classes do, and of
    `MEAN_RIDGE` times the square of what the mean weights' sum lacks of 1.
    """
    from scipy.optimize import minimize

    members, images, classes = log_p_MNC.shape
    rows = np.arange(images)
    ridges = np.repeat([MEAN_RIDGE, member_ridge, ridge], [1, members, (members + 1) * classes])
    start = np.zeros(len(ridges))
    start[0] = 1.0

    def loss(flat: Float64s) -> tuple[float, Float64s]:
        scale_MC, offset_C = (each.astype(np.float32) for each in _parts(flat, members, classes))
        log_p = log_softmax(stacked(log_p_MNC, scale_MC, offset_C))
        value = -float(log_p[rows, labels].sum(dtype=np.float64))
        error_NC = np.exp(log_p, out=log_p)
        error_NC[rows, labels] -= 1
        slope_MC = np.einsum("nc,mnc->mc", error_NC, log_p_MNC).astype(np.float64)
        slope_M = slope_MC.sum(axis=1)
        held = ridges * (flat - start)
        slopes = ([slope_M.mean()], slope_M, slope_MC.ravel(), error_NC.sum(axis=0))
        return value + float(held @ (flat - start)) / 2, np.concatenate(slopes) + held

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x
    scale_MC, offset_C = _parts(found, members, classes)
    share_M = np.maximum(scale_MC.mean(axis=1), LEAST_SHARE)
    stack = Stack(tuple(map(tuple, scale_MC.tolist())), tuple(offset_C.tolist()))
    return share_M / share_M.sum(), stack


def _parts(flat: Float64s, members: int, classes: int) -> tuple[Float64s, Float64s]:
    """Return weights (members, classes), from a mean and what differs, and offsets (classes,)."""
    by_member, by_class = flat[1 : 1 + members], flat[1 + members :].reshape(-1, classes)
    return flat[0] / members + by_member[:, None] + by_class[:-1], by_class[-1]


def _some_rows(rows: Rows, numbers: int) -> Rows:
    """Return those of the images that a fit reads, evenly spread; each has so many `numbers`."""
    return rows[:: max(1, -(-len(rows) * numbers // NUMBERS))]
