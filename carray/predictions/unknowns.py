"""How well a score tells images of unknown classes from those of known ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carray.json_file import JsonResult
from carray.predictions.conformal import conformal_limit
from carray.predictions.statistics import Interval, interval
from carray.typing import Float64s

RESAMPLES = 1000


@dataclass(frozen=True)
class Separation(JsonResult):
    """How a score did on known and unknown images; larger is less like what is known."""

    auroc: Interval
    """Chance that an unknown image scores above a known one."""
    caught: float
    """Share of the unknown images that a threshold at the false-alarm rate finds."""
    false_alarms: float
    """Share of the known images that it calls unknown; near the rate that it was chosen at."""
    known: int
    unknown: int


def alarm_threshold(known: npt.ArrayLike, false_alarm_rate: float) -> float:
    """Return the score above which at most `false_alarm_rate` of images like `known` lie.

    It is infinite where they are too few to promise that.
    """
    return conformal_limit(known, 1 - false_alarm_rate)


def separation(known: npt.ArrayLike, unknown: npt.ArrayLike, limit: float) -> Separation:
    """Return the AUROC, with a 95 % interval by bootstrap of both kinds, and what `limit` finds."""
    near, far = np.asarray(known, np.float64), np.asarray(unknown, np.float64)
    rng = np.random.default_rng(0)
    drawn = np.array(
        [_auroc(_resampled(near, rng), _resampled(far, rng)) for _ in range(RESAMPLES)]
    )
    return Separation(
        interval(_auroc(near, far), drawn),
        float((far > limit).mean()),
        float((near > limit).mean()),
        len(near),
        len(far),
    )


def _resampled(scores: Float64s, rng: np.random.Generator) -> Float64s:
    return scores[rng.integers(0, len(scores), len(scores))]


def _auroc(near: Float64s, far: Float64s) -> float:
    """Return the share of pairs that are in order; ties count half."""
    ordered = np.sort(near)
    below = np.searchsorted(ordered, far, "left") + np.searchsorted(ordered, far, "right")
    return float(below.mean() / 2 / len(near))
