"""How far a model's confidence can be believed: calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from carray.predictions.statistics import CONFIDENCE, Interval, Right, wilson
from carray.typing import Float32s, Float64s, Labels

BINS = 15  # of equal width, as Guo et al. (ICML 2017) have them
DRAWS = 1000


@dataclass(frozen=True)
class Bin:
    """Images of about the same confidence."""

    images: int
    confidence: float
    """Their mean probability of the answer."""
    right: Interval
    """The share that is right."""


@dataclass(frozen=True)
class Calibration:
    """Confidence against how often it is right."""

    error: float
    """Expected calibration error: |confidence - share right|, averaged over images by bin."""
    by_chance: float
    """Below this it is in 95 of 100 cases for a model whose every confidence is true."""
    confidence: float
    """The mean one; above top-1 the model is overconfident."""
    bins: tuple[Bin, ...]
    """Those that have images."""


def calibration_of(log_p: Float32s, labels: Labels, seed: int = 0) -> Calibration:
    """Measure log-probabilities (images, classes) against the images' labels."""
    confidence = np.exp(log_p.max(axis=1)).astype(np.float64).clip(max=1)
    right = log_p.argmax(axis=1) == labels
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    rng = np.random.default_rng(seed)
    drawn = [rng.random(len(labels)) < confidence for _ in range(DRAWS)]
    chance = np.percentile([_error(confidence, each, places) for each in drawn], 100 * CONFIDENCE)
    bins = (_bin(confidence[places == n], right[places == n]) for n in np.unique(places))
    error, mean = _error(confidence, right, places), float(confidence.mean())
    return Calibration(error, float(chance), mean, tuple(bins))


def _error(confidence: Float64s, right: Right, places: Labels) -> float:
    gaps = np.bincount(places, weights=confidence - right)
    return float(np.abs(gaps).sum() / len(confidence))


def _bin(confidence: Float64s, right: Right) -> Bin:
    return Bin(len(right), float(confidence.mean()), wilson(float(right.sum()), len(right)))
