"""Precision, recall and F1 of each class with intervals, and their means over classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carray.predictions.statistics import Interval, bootstrap_means, interval, wilson
from carray.typing import Float64s, Labels


@dataclass(frozen=True)
class ClassScore:
    """One class on a split."""

    name: str
    images: int
    """Of the class: its support."""
    predicted: int
    """Images that were taken for it, rightly or not."""
    precision: Interval
    """NaN where no image was taken for it."""
    recall: Interval
    """NaN where it has no image."""
    f1: Interval


@dataclass(frozen=True)
class MeanScores:
    """Means over the classes that are there or were predicted, as scikit-learn takes them."""

    precision: Interval
    recall: Interval
    f1: Interval


@dataclass(frozen=True)
class PerClass:
    """Every class, and means that count each class alike, or each image."""

    classes: tuple[ClassScore, ...]
    macro: MeanScores
    weighted: MeanScores
    balanced_accuracy: Interval
    """Mean recall over the classes that have images."""

    @property
    def worst(self) -> ClassScore:
        """The class that is recognised least; of equals, the one with most images."""
        there = (each for each in self.classes if each.images)
        return min(there, key=lambda each: (each.recall.value, -each.images))


def per_class_scores(
    answers: Labels, labels: Labels, classes: Sequence[str], seed: int = 0
) -> PerClass:
    """Return the scores of answers, class indices (N,), with 95 % intervals.

    A class's are Wilson's; its F1 is a monotone function of the share that is right of all images
    that are of the class or were taken for it (Hand, Christen & Kirielle, Machine Learning 2021).
    Those of means are of the bootstrap over images.
    """
    counts_N3C = _indicators(answers, labels, len(classes))
    right, predicted, there = counts_N3C.sum(axis=0).reshape(3, -1)
    columns = zip(classes, right, predicted, there, strict=True)
    means_R3C = bootstrap_means(counts_N3C, seed).reshape(-1, 3, len(classes)).clip(min=0)
    actual, drawn = _means(counts_N3C.mean(axis=0).reshape(1, 3, -1)), _means(means_R3C)
    drawn += actual - drawn.mean(axis=1, keepdims=True)  # drawn twice, few images mix up more
    intervals = [
        _share_interval(float(own[0]), each) for own, each in zip(actual, drawn, strict=True)
    ]
    return PerClass(
        classes=tuple(_class_score(*each) for each in columns),
        macro=MeanScores(*intervals[:3]),
        weighted=MeanScores(*intervals[3:6]),
        balanced_accuracy=intervals[6],
    )


def _share_interval(value: float, resampled: Float64s) -> Interval:
    found = interval(value, resampled)
    return Interval(value, max(found.low, 0.0), min(found.high, 1.0))


def _indicators(answers: Labels, labels: Labels, classes: int) -> Float64s:
    """Return for each image whether it is right, predicted and there, by class, (N, 3 C)."""
    one_hot = np.eye(classes)
    right = one_hot[labels] * (answers == labels)[:, None]
    return np.concatenate([right, one_hot[answers], one_hot[labels]], axis=1)


def _class_score(name: str, right: float, predicted: float, there: float) -> ClassScore:
    share = wilson(right, int(predicted + there - right))  # F1 = 2 x / (1 + x) of it
    f1 = Interval(*(2 * x / (1 + x) for x in (share.value, share.low, share.high)))
    precision, recall = wilson(right, int(predicted)), wilson(right, int(there))
    return ClassScore(name, int(there), int(predicted), precision, recall, f1)


def _means(shares_R3C: Float64s) -> Float64s:
    """Return macro and weighted precision, recall and F1, and balanced accuracy, (7, R)."""
    right, predicted, there = (shares_R3C[:, part] for part in range(3))
    precision, recall = _over(right, predicted), _over(right, there)
    f1 = _over(2 * right, predicted + there)
    seen, is_there = predicted + there > 0, there > 0
    macro = [_mean(each, seen) for each in (precision, recall, f1)]
    weighted = [_mean(each, there) for each in (precision, recall, f1)]
    return np.stack([*macro, *weighted, _mean(recall, is_there)])


def _over(part: Float64s, whole: Float64s) -> Float64s:
    """Divide; 0 where there is nothing, and at most 1."""
    found: Float64s = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return found.clip(max=1)


def _mean(values: Float64s, weights: Float64s | npt.NDArray[np.bool_]) -> Float64s:
    whole = weights.sum(axis=-1, dtype=np.float64)  # of means that were drawn of one image, 0
    found: Float64s = np.full_like(whole, np.nan)
    np.divide((values * weights).sum(axis=-1), whole, out=found, where=whole > 0)
    return found
