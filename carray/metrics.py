"""Metric names, spelled once, and what is better in each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

TRAIN_LOSS = "train/loss"
VAL_LOG_LOSS = "val/log_loss"
VAL_TOP1 = "val/top1"
VAL_TOP5 = "val/top5"
VAL_MACRO_F1 = "val/macro_f1"
TRAIN_SKILL = "train/skill"  # 1 - loss over that of always saying the classes' shares; 0: chance
VAL_SKILL = "val/skill"  # 1 - log-loss over that of always saying the classes' shares; 0: chance
VAL_SPREAD = "val/prediction_spread"  # entropy of the predicted classes over the labels', from 0
VAL_LOGIT_STD = "val/logit_std"  # of each class's logit over images, mean over classes
IMAGES_PER_SECOND = "images_per_second"  # training images over all ranks, evaluation not counted
EPOCH_SECONDS = "epoch_seconds"  # training and evaluation of one epoch
DATA_WAIT = "data_wait"  # share of the training time spent waiting for batches, in [0, 1]
PEAK_MEMORY_GIB = "peak_memory_gib"  # of the device; of the process where there is no device
LR = "lr"  # the first parameter group's learning rate at the end of the epoch

EPOCH_METRICS = (
    TRAIN_LOSS,
    TRAIN_SKILL,
    VAL_LOG_LOSS,
    VAL_TOP1,
    VAL_TOP5,
    VAL_MACRO_F1,
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
    VAL_TOP1: "maximize",
    VAL_TOP5: "maximize",
    VAL_MACRO_F1: "maximize",
}

EpochRow = Mapping[str, float]  # metric name -> value, for one epoch


def is_better(metric: str, value: float, than: float) -> bool:
    """Say whether `value` beats `than` in `metric`; nothing that isn't finite beats anything."""
    if not math.isfinite(value):
        return False
    if not math.isfinite(than):
        return True
    return value < than if OBJECTIVES[metric] == "minimize" else value > than


def best_epoch(rows: Iterable[EpochRow], metric: str) -> int | None:
    """Return the 1-based epoch that is best in `metric`; the earliest of equals; None of none."""
    best: int | None = None
    best_value = math.nan
    for epoch, row in enumerate(rows, start=1):
        value = row.get(metric, math.nan)
        if is_better(metric, value, best_value):
            best, best_value = epoch, value
    return best
