"""Metric names, spelled once, and what is better in each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import quote

TRAIN_LOSS = "train/loss"
TRAIN_TOP1 = "train/top1"  # of the images as they are trained on: augmented, with dropout
VAL_LOG_LOSS = "val/log_loss"
VAL_CALIBRATED_LOG_LOSS = "val/calibrated_log_loss"  # at the temperature that lowers it most
VAL_TOP1 = "val/top1"
VAL_TOP5 = "val/top5"
VAL_MACRO_F1 = "val/macro_f1"
VAL_BALANCED_ACCURACY = "val/balanced_accuracy"  # mean over classes of the share that is right
VAL_WORST_CLASS = "val/worst_class"  # share that is right of the class that is recognised least
TRAIN_SKILL = "train/skill"  # 1 - loss over that of always saying the classes' shares; 0: chance
VAL_SKILL = "val/skill"  # 1 - log-loss over that of always saying the classes' shares; 0: chance
VAL_SPREAD = "val/prediction_spread"  # entropy of the predicted classes over the labels', from 0
VAL_LOGIT_STD = "val/logit_std"  # of each class's logit over images, mean over classes
IMAGES_PER_SECOND = "images_per_second"  # training images over all ranks, evaluation not counted
EPOCH_SECONDS = "epoch_seconds"  # training and evaluation of one epoch
ENERGY_JOULES = "energy_joules"  # that its GPUs drew in it; only where NVML counts that
DATA_WAIT = "data_wait"  # share of the training time spent waiting for batches, in [0, 1]
PEAK_MEMORY_GIB = "peak_memory_gib"  # of the device; of the process where there is no device
LR = "lr"  # the first parameter group's learning rate at the end of the epoch

EPOCH_METRICS = (
    TRAIN_LOSS,
    TRAIN_TOP1,
    TRAIN_SKILL,
    VAL_LOG_LOSS,
    VAL_CALIBRATED_LOG_LOSS,
    VAL_TOP1,
    VAL_TOP5,
    VAL_MACRO_F1,
    VAL_BALANCED_ACCURACY,
    VAL_WORST_CLASS,
    VAL_SKILL,
    VAL_SPREAD,
    VAL_LOGIT_STD,
    IMAGES_PER_SECOND,
    EPOCH_SECONDS,
    DATA_WAIT,
    PEAK_MEMORY_GIB,
    LR,
)

OBJECTIVES = {
    VAL_LOG_LOSS: "minimize",
    VAL_CALIBRATED_LOG_LOSS: "minimize",
    VAL_TOP1: "maximize",
    VAL_TOP5: "maximize",
    VAL_MACRO_F1: "maximize",
    VAL_BALANCED_ACCURACY: "maximize",
}
SHORT_NAMES = {
    VAL_LOG_LOSS: "log-loss",
    VAL_CALIBRATED_LOG_LOSS: "calibrated log-loss",
    VAL_TOP1: "top-1",
    VAL_TOP5: "top-5",
    VAL_MACRO_F1: "macro F1",
    VAL_BALANCED_ACCURACY: "balanced accuracy",
}

LOG_LOSSES = (VAL_LOG_LOSS, VAL_CALIBRATED_LOG_LOSS)
DEFAULT_OBJECTIVE = VAL_CALIBRATED_LOG_LOSS

TEMPERATURES = tuple(round(0.25 * 16 ** (step / 24), 3) for step in range(25))
"""That logits are divided by to calibrate them, from 0.25 to 4; the middle one is exactly 1."""

EpochRow = Mapping[str, float]  # metric name -> value, for one epoch


class Scored(Protocol):
    """What has a value in every metric: a trial's record."""

    def best(self, metric: str) -> float:
        """Return `metric` at the best epoch; NaN where there is none."""


ScoredT = TypeVar("ScoredT", bound=Scored)


@dataclass(frozen=True)
class Objective:
    """What a study optimises, and the one order of values and trials by it.

    Which trials are compared, refits or pruned ones say, is the caller's choice.
    """

    metric: str

    @property
    def direction(self) -> str:
        """`minimize` or `maximize`."""
        return OBJECTIVES[self.metric]

    @property
    def sign(self) -> float:
        """1 where the metric is minimized, else -1: values times it are losses."""
        return 1.0 if self.direction == "minimize" else -1.0

    def key(self, value: float) -> float:
        """Return what to sort values by: the best first, what isn't finite last."""
        return self.sign * value if math.isfinite(value) else math.inf

    def key_of(self, record: Scored) -> float:
        """Return what to sort records by, as `key` does their values."""
        return self.key(record.best(self.metric))

    def is_better(self, value: float, than: float) -> bool:
        """Say whether `value` beats `than`; nothing that isn't finite beats anything."""
        return self.key(value) < self.key(than)

    def best(self, records: Iterable[ScoredT]) -> ScoredT | None:
        """Return the best of `records`, the first of equals; None of none."""
        return min(records, key=self.key_of, default=None)


def best_epoch(rows: Iterable[EpochRow], metric: str) -> int | None:
    """Return the 1-based epoch that is best in `metric`; the earliest of equals; None of none."""
    objective = Objective(metric)
    best: int | None = None
    best_value = math.nan
    for epoch, row in enumerate(rows, start=1):
        value = row.get(metric, math.nan)
        if objective.is_better(value, best_value):
            best, best_value = epoch, value
    return best


def ascii_name(name: str) -> str:
    """Return a name as Ray takes it in a metric's tag: other letters as in URLs, `%C3%9F` for `ß`.

    Ray refuses letters beyond ASCII there with an error of its own, in whatever it counts.
    """
    return "".join(letter if letter.isascii() else quote(letter) for letter in name)
