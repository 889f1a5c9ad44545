"""What a study's records say about its data set: a table of recipes and learning curves.

A trial that was stopped has only the beginning of a curve. Its end is made up: it goes on as the
full-length trials did from that epoch, by the median of their ratios. `full` tells them apart.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carray.config import flatten
from carray.errors import RecordError
from carray.metrics import Objective
from carray.records import StudyFolder, TrialRecord, TrialState
from carray.search.warm_start.recipe_distance import Point
from carray.typing import Float64s

NOT_RECIPE = (
    *("seed", "head.seed", "fold", "epochs"),
    *("best_metric", "early_stop_patience", "precision"),
)
USED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class RecordedStudy:
    """One study as a table."""

    name: str
    data: str
    """Which data set: the manifest's hash."""
    metric: str
    points: tuple[Point, ...]
    """Each trial's whole recipe by dotted names, without seed and length."""
    curves: Float64s
    """(trials, epochs): the metric after each epoch, in the metric's own direction."""
    full: npt.NDArray[np.bool_]
    """(trials,): whether the curve was seen to its end."""

    @property
    def losses(self) -> Float64s:
        """Return each trial's best epoch, (trials,); lower is better whatever the metric."""
        best: Float64s = (Objective(self.metric).sign * self.curves).min(axis=1)
        return best


def read_recorded(folder: StudyFolder) -> RecordedStudy:
    """Read a study's search trials that ended complete or stopped; refits don't count.

    Raises:
        RecordError: it is no search, or none of its trials was trained to the end.
    """
    study = folder.record()
    if study.kind != "search":
        raise RecordError(
            f"study {study.name!r} collects single trials: only what a search of `carray tune` "
            "drew can be learned from"
        )
    records = [r for _, r in folder.trials() if r.kind == "search" and r.state in USED]
    values = ([row.get(study.metric, np.nan) for row in record.epochs] for record in records)
    curves = [np.array(own, np.float64) for own in values]
    finite = [
        (r, c) for r, c in zip(records, curves, strict=True) if c.size and np.isfinite(c).all()
    ]
    ends = [r.state is TrialState.COMPLETE for r, _ in finite]
    if not any(ends):
        raise RecordError(
            f"study {study.name!r} has no trial that was trained to its end; "
            "run more trials, or some with --scheduler none"
        )
    return RecordedStudy(
        name=study.name,
        data=study.manifest_hash,
        metric=study.metric,
        points=tuple(recipe_of(record) for record, _ in finite),
        curves=extrapolate_stopped([curve for _, curve in finite], ends, study.metric),
        full=np.array(ends),
    )


def recipe_of(record: TrialRecord) -> dict[str, object]:
    """Return a trial's recipe: its whole config by dotted names, without `NOT_RECIPE`."""
    return {name: v for name, v in flatten(record.config).items() if name not in NOT_RECIPE}


def extrapolate_stopped(curves: Sequence[Float64s], ended: Sequence[bool], metric: str) -> Float64s:
    """Bring curves to one length, (trials, epochs).

    One that ended by itself stays at its last value; a stopped one goes on as the module says.
    """
    length = max(map(len, curves))
    flat = [np.pad(c, (0, length - len(c)), mode="edge") for c in curves]
    full = np.stack([c for c, whole in zip(flat, ended, strict=True) if whole])
    return np.stack(
        [
            padded if whole else _extrapolated(curve, full, metric)
            for curve, padded, whole in zip(curves, flat, ended, strict=True)
        ]
    )


def _extrapolated(curve: Float64s, full: Float64s, metric: str) -> Float64s:
    """Append what the median full-length curve does after as many epochs."""
    seen = len(curve)
    own, others = _distance(curve, metric), _distance(full, metric)
    with warnings.catch_warnings(action="ignore"):  # a mean of ratios of zeros
        ratios = np.median(others[:, seen:] / np.maximum(others[:, seen - 1 : seen], 1e-9), axis=0)
    rest = own[-1] * np.nan_to_num(ratios, nan=1.0, posinf=1.0)
    return np.concatenate([curve, _distance(rest, metric)])


def _distance(values: Float64s, metric: str) -> Float64s:
    """Return how far values are from perfect, a loss itself or one minus a share; and back."""
    return values if Objective(metric).direction == "minimize" else 1.0 - values
