"""Conformal sets: classes among which the right one is, with a stated probability.

Nothing is assumed but that images come as those did which the threshold was chosen on. LAC is
Sadinle et al., "Least Ambiguous Set-Valued Classifiers", JASA 2019; APS is Romano et al.,
"Classification with Valid and Adaptive Coverage", NeurIPS 2020, without its random part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from carray.json_file import JsonResult
from carray.predictions.scores import make_folds
from carray.predictions.statistics import Interval, wilson
from carray.typing import Float32s, Float64s, Labels

Method = Literal["lac", "aps"]
METHODS: tuple[Method, ...] = ("lac", "aps")
NUM_FOLDS = 10
OUTSIDE = 5  # images beyond its own threshold that a class must be expected to have
SLACK = 1e-6  # of sums in float32: the image that sets a threshold is inside of it


@dataclass(frozen=True)
class Coverage(JsonResult):
    """How sets did on images that their threshold was not chosen on."""

    method: Method
    wanted: float
    found: Interval
    """Share of the images whose set holds the right class."""
    mean_size: float
    single: float
    """Share of the sets that hold one class."""
    images: int


def nonconformity(p_NC: Float32s, method: Method) -> Float64s:
    """Return how odd each class is for each image, (images, classes); sets take the least odd.

    LAC: one minus its probability. APS: the probability of all classes down to it.
    """
    exact: Float64s = p_NC.astype(np.float64)
    odd: Float64s = 1.0 - exact
    if method == "lac":
        return odd
    order = np.argsort(-exact, axis=1, kind="stable")
    sums = np.take_along_axis(exact, order, axis=1).cumsum(axis=1)
    np.put_along_axis(odd, order, sums, axis=1)
    return odd


def threshold(p_NC: Float32s, labels: Labels, method: Method, coverage: float) -> float:
    """Return how odd a class of a set may be; infinite where the images are too few to say."""
    return conformal_limit(nonconformity(p_NC, method)[np.arange(len(labels)), labels], coverage)


def thresholds(p_NC: Float32s, labels: Labels, method: Method, coverage: float) -> Float64s:
    """Return how odd each class of a set may be, (classes,); infinite as `threshold` is.

    A class with images enough has its own, so that its images are covered as often as others'
    (Vovk, "Conditional validity of inductive conformal predictors", ACML 2012); the others share
    one, of their images if these are enough, else of all.
    """
    odd = nonconformity(p_NC, method)[np.arange(len(labels)), labels]
    is_own = have_own(labels, p_NC.shape[1], coverage)
    shared = conformal_limit(odd[~is_own[labels]], coverage)
    if not np.isfinite(shared):
        shared = conformal_limit(odd, coverage)
    limits = np.full(len(is_own), shared)
    for place in np.flatnonzero(is_own):
        limits[place] = conformal_limit(odd[labels == place], coverage)
    return limits


def have_own(labels: Labels, classes: int, coverage: float) -> npt.NDArray[np.bool_]:
    """Say which classes have images enough for a threshold of their own, (classes,)."""
    enough: npt.NDArray[np.bool_] = (
        np.bincount(labels, minlength=classes) * (1 - coverage) > OUTSIDE - SLACK
    )
    return enough


def conformal_limit(scores: npt.ArrayLike, coverage: float) -> float:
    """Return what at least `coverage` of scores like these don't exceed; infinite for too few."""
    known = np.sort(np.asarray(scores, np.float64))
    rank = int(np.ceil((len(known) + 1) * coverage))
    return float(known[rank - 1]) if rank <= len(known) else float("inf")


def sets_of(p_NC: Float32s, method: Method, limits: float | Float64s) -> npt.NDArray[np.bool_]:
    """Return which classes each image's set holds, (images, classes); the likeliest always.

    `limits` is one of all classes, or (classes,).
    """
    held: npt.NDArray[np.bool_] = nonconformity(p_NC, method) <= limits + SLACK
    held[np.arange(len(held)), np.argmax(p_NC, axis=1)] = True
    return held


def measure(p_NC: Float32s, labels: Labels, method: Method, coverage: float) -> Coverage:
    """Cross-fit thresholds and return what sets cover on the images left out of each."""
    held = np.empty(np.shape(p_NC), bool)
    for fold in make_folds(labels, 0, NUM_FOLDS):
        others = np.setdiff1d(np.arange(len(labels)), fold)
        limits = thresholds(p_NC[others], labels[others], method, coverage)
        held[fold] = sets_of(p_NC[fold], method, limits)
    return coverage_of(held, labels, method, coverage)


def coverage_of(
    held: npt.NDArray[np.bool_], labels: Labels, method: Method, coverage: float
) -> Coverage:
    """Say how sets did; `held` is (images, classes)."""
    right = held[np.arange(len(labels)), labels]
    sizes = held.sum(axis=1)
    return Coverage(
        *(method, coverage, wilson(float(right.sum()), len(labels))),
        *(float(sizes.mean()), float((sizes == 1).mean()), len(labels)),
    )


def choose(found: Sequence[Coverage]) -> Coverage:
    """Return the method whose sets are smallest on average."""
    return min(found, key=lambda each: each.mean_size)
