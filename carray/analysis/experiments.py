"""A study's trials as a table of experiments: cost, overfitting, and what each change brought."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from carray import metrics
from carray.analysis.compare_trials import median_speed, peak_memory_gib
from carray.analysis.leaders import read_on_val
from carray.config import flatten
from carray.json_file import JsonResult
from carray.predictions.network_costs import NetworkCosts
from carray.predictions.statistics import Interval, gain_verdict, mean_interval
from carray.records import StudyFolder, TrialRecord
from carray.search.warm_start.recipe_distance import RecipeDistance, squared_distances
from carray.training.stopping import starved_by_plateau
from carray.typing import Float32s, Labels

BESIDE = ("seed", "fold")  # names that are no change of the recipe


@dataclass(frozen=True)
class Experiment:
    """One trial; figures are of the epoch that was kept, NaN where an old record lacks them."""

    trial: str
    state: str
    backbone: str
    seconds: float
    parameters: int | None
    peak_memory_gib: float
    images_per_second: float
    """The median of its epochs."""
    epochs: int
    train_loss: float
    val_loss: float
    train_top1: float
    """Of augmented images, with dropout: lower than without."""
    val_top1: float
    macro_f1: float
    balanced_accuracy: float
    worst_class: float
    against: str
    """The nearest earlier trial; "" of the first."""
    changes: Mapping[str, tuple[Any, Any]]
    """Name -> its value there and here."""
    gain: Interval | None
    """How much lower the log-loss is than there, paired by image of `val`; None without logits.

    Of a study that compares calibrated log-losses, each at the temperature that suits `val` best.
    """
    remark: str = ""
    """What may have gone wrong in its training."""
    costs: Mapping[str, float] = field(default_factory=dict)
    """What its network costs by name, as in `ms_cpu`, where `carray bench STUDY` measured it."""

    @property
    def gap(self) -> float:
        """How much higher top-1 is in training than on `val`: overfitting."""
        return self.train_top1 - self.val_top1

    @property
    def verdict(self) -> str:
        """Whether it is better than the trial that it is held against; "" where none can say."""
        return gain_verdict(self.gain) if self.gain else ""


@dataclass(frozen=True)
class Experiments(JsonResult):
    """All trials of a study, by number."""

    study: str
    rows: tuple[Experiment, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data, with each row's gap and verdict."""
        told = super().as_dict()
        for own, row in zip(told["rows"], self.rows, strict=True):
            own |= {"gap": None if math.isnan(row.gap) else row.gap, "verdict": row.verdict}
        return told


def experiments_of(folder: StudyFolder) -> Experiments:
    """Hold each trial of a study against the earlier one whose configuration is nearest."""
    records = folder.records()
    flat = [_recipe(record) for record in records]
    vectors = RecipeDistance.fit(flat).vectors(flat)
    labels, metric = folder.labels("val"), folder.record().metric
    losses = [_val_losses(folder, record, labels, metric) for record in records]
    rows = []
    for place, record in enumerate(records):
        nearest = _nearest(squared_distances(vectors[place : place + 1], vectors[:place])[0])
        if record.refit_of is not None:
            numbers = [one.number for one in records[:place]]
            nearest = numbers.index(record.refit_of) if record.refit_of in numbers else nearest
        earlier = None if nearest is None else records[nearest]
        gain = None if nearest is None else _gain(losses[nearest], losses[place])
        rows.append(_experiment(record, earlier, gain))
    costs = NetworkCosts.of(folder)
    measured = (
        replace(row, costs=costs.figures(record.config))
        for row, record in zip(rows, records, strict=True)
    )
    return Experiments(folder.path.name, tuple(measured))


def _recipe(record: TrialRecord) -> dict[str, Any]:
    known = flatten(record.config)
    return {name: value for name, value in known.items() if name not in BESIDE}


def _nearest(squared: np.ndarray[Any, np.dtype[np.float64]]) -> int | None:
    """Return the place of the least distance, the latest of equals; None of none."""
    return None if not len(squared) else len(squared) - 1 - int(squared[::-1].argmin())


def _val_losses(
    folder: StudyFolder, record: TrialRecord, labels: Labels, metric: str
) -> Float32s | None:
    """Return each image's log-loss on `val`; None where the trial left none, or is of a fold."""
    if record.config.fold is not None or not folder.trial(record.number).logits_file.exists():
        return None
    return read_on_val(folder, record, labels, metric).losses


def _gain(earlier: Float32s | None, own: Float32s | None) -> Interval | None:
    if earlier is None or own is None or len(own) < 2:
        return None
    return mean_interval(earlier - own)


def _experiment(
    record: TrialRecord, earlier: TrialRecord | None, gain: Interval | None
) -> Experiment:
    return Experiment(
        trial=record.name,
        state=str(record.state),
        backbone=record.config.backbone,
        seconds=record.trained_seconds,
        parameters=record.parameters,
        peak_memory_gib=peak_memory_gib(record),
        images_per_second=median_speed(record),
        epochs=len(record.epochs),
        train_loss=record.best(metrics.TRAIN_LOSS),
        val_loss=record.best(metrics.VAL_LOG_LOSS),
        train_top1=record.best(metrics.TRAIN_TOP1),
        val_top1=record.best(metrics.VAL_TOP1),
        macro_f1=record.best(metrics.VAL_MACRO_F1),
        balanced_accuracy=record.best(metrics.VAL_BALANCED_ACCURACY),
        worst_class=record.best(metrics.VAL_WORST_CLASS),
        against=earlier.name if earlier else "",
        changes=_changes(earlier, record) if earlier else {},
        gain=gain,
        remark=starved_by_plateau(record.epochs, record.config),
    )


def _changes(earlier: TrialRecord, record: TrialRecord) -> dict[str, tuple[Any, Any]]:
    """Return what differs; of trials of one recipe, their seeds or folds."""
    before, now = flatten(earlier.config), flatten(record.config)
    names: Sequence[str] = [n for n in {**before, **now} if before.get(n) != now.get(n)]
    return {name: (before.get(name), now.get(name)) for name in names}
