"""One step of an ablation: a change, its gain with an interval, and whether it stays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from carray.predictions.statistics import Interval, gain_verdict, mean_interval, scores_of
from carray.records import TrialRecord
from carray.search.space.distributions import Scalar

Keep = Literal["better", "all", "none"]
KEEPS: tuple[Keep, ...] = ("better", "all", "none")
ScoresSN = npt.NDArray[np.float64]
LossesN = npt.NDArray[np.floating]


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

    @property
    def names(self) -> tuple[str, ...]:
        """Return the trials' names."""
        return tuple(record.name for record in self.records)


def anchor_step(anchor: SeedRuns) -> AblationStep:
    """Return the first step, which is compared with nothing."""
    noise = seed_noise_bound(anchor.losses, 1, 1)
    return step_of("anchor", anchor.names, anchor.losses, anchor.right, noise=noise)


def compare_steps(
    name: str, stands: SeedRuns, tried: SeedRuns, anchor: SeedRuns, keep: Keep
) -> AblationStep:
    """Say whether `tried` is better than what stands, by more than the anchor's seeds differ."""
    gain = mean_interval(stands.losses.mean(axis=0) - tried.losses.mean(axis=0))
    noise = seed_noise_bound(anchor.losses, len(stands.records), len(tried.records))
    verdict = gain_verdict(gain, noise)
    stays = keep == "all" or (keep == "better" and verdict == "better")
    return step_of(
        name, tried.names, tried.losses, tried.right, "val", gain, verdict, noise, stays=stays
    )


def seed_noise_bound(anchor_SN: ScoresSN, first: int, second: int) -> float:
    """Return how far means over `first` and `second` seeds may differ by chance, at 95 %."""
    from scipy.stats import t

    per_seed = anchor_SN.mean(axis=1)
    deviation = float(per_seed.std(ddof=1))
    quantile = float(t.ppf(0.975, len(per_seed) - 1))
    return quantile * deviation * math.sqrt(1 / first + 1 / second)


def step_of(
    name: str,
    trials: tuple[str, ...],
    losses: LossesN | ScoresSN,
    right: npt.NDArray[Any],
    split: str = "val",
    gain: Interval | None = None,
    verdict: str = "",
    noise: float = 0.0,
    *,
    stays: bool = True,
) -> AblationStep:
    """Score a step by its images' `losses` and whether they are `right`: (N,), or (seeds, N)."""
    losses_N, right_N = (np.atleast_2d(values).mean(axis=0) for values in (losses, right))
    scores = scores_of(losses_N, right_N)
    found = (scores.log_loss, scores.top1, gain, noise, verdict, stays)
    return AblationStep(name, trials, len(losses_N), split, *found)
