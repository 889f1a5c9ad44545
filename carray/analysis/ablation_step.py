"""One step of an ablation: a change, its gain with an interval, and whether it stays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from carray.predictions.statistics import Interval, bootstrap_means, interval, scores_of
from carray.records import TrialRecord
from carray.search.space.distributions import Scalar

BETTER, WORSE, NOISE = "better", "worse", "within noise"
Keep = Literal["better", "all", "none"]
KEEPS: tuple[Keep, ...] = ("better", "all", "none")
ScoresSN = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AblationStep:
    """One step of the ladder, compared with what stood before it."""

    name: str
    """What it changes, as in `image_size 384`; `anchor`."""
    trials: tuple[str, ...]
    images: int
    split: str
    log_loss: Interval
    """Of the images; seeds are averaged."""
    top1: Interval
    gain: Interval | None
    """Log-loss of what stood minus the step's, paired by image: above zero is better."""
    noise: float
    """A gain that another seed alone may bring, at 95 %."""
    verdict: str
    """`better`, `worse` or `within noise`; "" of the anchor."""
    stays: bool


@dataclass(frozen=True, eq=False)
class SeedRuns:
    """Some seeds of one configuration: what they cost each image of `val`."""

    params: Mapping[str, Scalar]
    records: tuple[TrialRecord, ...]
    losses: ScoresSN
    """(seeds, images)."""
    right: ScoresSN
    """(seeds, images), 1 where right."""


def _anchor_step(anchor: SeedRuns) -> AblationStep:
    noise = seed_noise_bound(anchor.losses, 1, 1)
    return _step("anchor", anchor, None, noise, "", stays=True)


def compare_steps(
    name: str, stands: SeedRuns, tried: SeedRuns, anchor: SeedRuns, keep: Keep
) -> AblationStep:
    """Say whether `tried` is better than what stands, by more than the anchor's seeds differ."""
    gains_N = stands.losses.mean(axis=0) - tried.losses.mean(axis=0)
    gain = interval(float(gains_N.mean()), bootstrap_means(gains_N[:, None])[:, 0])
    noise = seed_noise_bound(anchor.losses, len(stands.records), len(tried.records))
    verdict = NOISE
    if abs(gain.value) > noise and gain.excludes_zero():
        verdict = BETTER if gain.value > 0 else WORSE
    stays = keep == "all" or (keep == "better" and verdict == BETTER)
    return _step(name, tried, gain, noise, verdict, stays=stays)


def seed_noise_bound(anchor_SN: ScoresSN, first: int, second: int) -> float:
    """Return how far means over `first` and `second` seeds may differ by chance, at 95 %."""
    from scipy.stats import t

    per_seed = anchor_SN.mean(axis=1)
    deviation = float(per_seed.std(ddof=1))
    quantile = float(t.ppf(0.975, len(per_seed) - 1))
    return quantile * deviation * math.sqrt(1 / first + 1 / second)


def _step(
    name: str,
    tried: SeedRuns,
    gain: Interval | None,
    noise: float,
    verdict: str,
    *,
    stays: bool,
) -> AblationStep:
    losses = tried.losses.mean(axis=0)
    scores = scores_of(losses, tried.right.mean(axis=0))
    names = tuple(record.name for record in tried.records)
    told = (scores.log_loss, scores.top1, gain, noise, verdict, stays)
    return AblationStep(name, names, len(losses), "val", *told)
