"""Test-time augmentation: sets of views, how their answers are merged, and whether that pays.

A set earns its place on images that nothing was fitted to, or it is refused with its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from carray.predictions.averaging import AverageOf
from carray.predictions.scores import cross_fit_temperature, top1
from carray.predictions.statistics import (
    CONFIDENCE,
    Interval,
    simultaneous_gains,
)
from carray.predictions.views import Tta
from carray.typing import Float32s, Labels, Rows

KEPT, NO_GAIN, HURTS = "kept", "no gain", "hurts"


@dataclass(frozen=True)
class TtaRow:
    """What one set of views was worth on the images that judged it."""

    name: str
    space: AverageOf
    views: int
    log_loss: float
    """At temperatures fitted elsewhere."""
    top1: float
    gain: Interval
    """Log-loss without it minus log-loss with it: above zero is better. The interval holds for all
    measured sets at once, so for the best of them too."""
    p: float
    """Of a gain this large in either direction, in the largest of as many sets, by chance."""
    temperature: float
    chosen: bool = False

    @property
    def verdict(self) -> str:
        """One of `kept`, `no gain` and `hurts`: what can't be told from chance is no gain."""
        if not self.gain.excludes_zero() or self.p >= 1 - CONFIDENCE:
            return NO_GAIN
        return KEPT if self.gain.value > 0 else HURTS


def evaluate_tta_sets(
    ttas: Sequence[Tta],
    log_ps: Sequence[Float32s],
    labels: Labels,
    folds: Sequence[Rows],
    seed: int,
) -> tuple[TtaRow, ...]:
    """Compare each set with none, paired image by image; mark the best of those that earned it.

    `log_ps` hold what the whole model says with each of `ttas`, the first being `NONE`, as
    (images, classes). Every answer has its own temperature, fitted where it isn't scored. A set
    earns its place by more than the best of so many sets would gain by chance.
    """
    settled = [cross_fit_temperature(log_p, labels, folds) for log_p in log_ps]
    losses_NK = np.stack([own.losses for own in settled], axis=1).astype(np.float64)
    gains_NK = losses_NK[:, :1] - losses_NK
    judged = simultaneous_gains(gains_NK, seed)  # the first gain is zero and adds nothing
    rows = [
        TtaRow(
            tta.name,
            tta.space,
            len(tta.views),
            float(losses.mean()),
            top1(log_p, labels),
            gain,
            p,
            own.temperature,
        )
        for tta, log_p, own, losses, (gain, p) in zip(
            ttas, log_ps, settled, losses_NK.T, judged, strict=True
        )
    ]
    return _with_chosen(rows)


def _with_chosen(rows: Sequence[TtaRow]) -> tuple[TtaRow, ...]:
    earned = [row for row in rows if row.verdict == KEPT]
    best = min(earned, key=lambda row: row.log_loss, default=rows[0])
    return tuple(replace(row, chosen=row is best) for row in rows)
