"""How sure a number is: bootstrap intervals and paired tests, over the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carray.ensemble.logits import Floats, Labels

RESAMPLES = 2000
CHUNK = 250  # resamples at once: 250 x 10,000 float32 counts are 10 MB
CONFIDENCE = 0.95
Z_SCORE = 1.959964  # of that confidence, two-sided


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % bootstrap interval (percentile)."""

    value: float
    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Say whether zero lies outside."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Scores:
    """Top-1 and log-loss with their intervals."""

    top1: Interval
    log_loss: Interval


@dataclass(frozen=True)
class Comparison:
    """The ensemble against the best single trial on the same images."""

    images: int
    single: Scores
    ensemble: Scores
    top1_gain: Interval
    """Ensemble minus single: above zero is better."""
    log_loss_gain: Interval
    """Single minus ensemble: above zero is better."""
    only_ensemble_right: int
    only_single_right: int
    top1_p: float
    """McNemar's exact test, two-sided (McNemar, Psychometrika 1947)."""
    log_loss_p: float
    """Paired bootstrap, two-sided."""

    @property
    def verdict(self) -> str:
        """One of `better`, `not better` and `worse`, by log-loss first, then by top-1."""
        for gain, p in ((self.log_loss_gain, self.log_loss_p), (self.top1_gain, self.top1_p)):
            if gain.excludes_zero() and p < 1 - CONFIDENCE:
                return "better" if gain.value > 0 else "worse"
        return "not better"


def compare(single: Floats, ensemble: Floats, labels: Labels, seed: int = 0) -> Comparison:
    """Compare two sets of log-probabilities, (images, classes), on the same images."""
    rows = np.arange(len(labels))
    right = [log_p.argmax(axis=1) == labels for log_p in (single, ensemble)]
    losses = [-log_p[rows, labels] for log_p in (single, ensemble)]
    values = np.stack([*right, *losses], axis=1).astype(np.float64)  # (images, 4)
    means = bootstrap_means(values, seed)
    top1s, log_losses = means[:, :2], means[:, 2:]
    actual = values.mean(axis=0)
    scores = [
        Scores(
            interval(float(actual[which]), top1s[:, which]),
            interval(float(actual[2 + which]), log_losses[:, which]),
        )
        for which in (0, 1)
    ]
    loss_gain = log_losses[:, 0] - log_losses[:, 1]
    only_ensemble = int((right[1] & ~right[0]).sum())
    only_single = int((right[0] & ~right[1]).sum())
    return Comparison(
        images=len(labels),
        single=scores[0],
        ensemble=scores[1],
        top1_gain=interval(float(actual[1] - actual[0]), top1s[:, 1] - top1s[:, 0]),
        log_loss_gain=interval(float(actual[2] - actual[3]), loss_gain),
        only_ensemble_right=only_ensemble,
        only_single_right=only_single,
        top1_p=mcnemar_exact(only_ensemble, only_single),
        log_loss_p=two_sided_p(loss_gain),
    )


def bootstrap_means(
    values_NK: npt.NDArray[np.float64], seed: int = 0, resamples: int = RESAMPLES
) -> npt.NDArray[np.float64]:
    """Return the means of `resamples` draws of N images with replacement, (resamples, K).

    A draw is a vector of counts, so all means of a chunk are one matrix product.
    """
    rng = np.random.default_rng(seed)
    num_images = len(values_NK)
    means = []
    for start in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - start)
        drawn = rng.integers(0, num_images, (count, num_images), np.int32)
        drawn += num_images * np.arange(count, dtype=np.int32)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=count * num_images)
        means.append(counts.reshape(count, num_images) @ values_NK / num_images)
    return np.concatenate(means)


def interval(value: float, resampled: npt.NDArray[np.float64]) -> Interval:
    """Return the central 95 % of the resampled values around `value`."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Interval(value, float(low), float(high))


def wilson(right: int, images: int) -> Interval:
    """Return a share and its 95 % interval, which holds for few images too.

    Wilson, Journal of the American Statistical Association 1927.
    """
    if images == 0:
        return Interval(float("nan"), 0.0, 1.0)
    share, squared = right / images, Z_SCORE**2
    middle = (share + squared / (2 * images)) / (1 + squared / images)
    spread = share * (1 - share) / images + squared / (4 * images**2)
    half = Z_SCORE * spread**0.5 / (1 + squared / images)
    low = 0.0 if right == 0 else middle - half
    return Interval(share, low, 1.0 if right == images else middle + half)


def two_sided_p(resampled_gains: npt.NDArray[np.float64]) -> float:
    """Return twice the share of resampled gains on the rarer side of zero; never exactly 0."""
    count = len(resampled_gains) + 1
    below = (1 + int((resampled_gains <= 0).sum())) / count
    above = (1 + int((resampled_gains >= 0).sum())) / count
    return min(1.0, 2 * min(below, above))


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p-value that two classifiers are equally often right.

    Only images that one gets right and the other wrong say anything; under the null each is a coin.
    """
    from scipy.special import bdtr

    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    return min(1.0, 2.0 * float(bdtr(min(only_first, only_second), discordant, 0.5)))
