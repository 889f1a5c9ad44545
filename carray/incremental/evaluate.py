"""Evaluates an added class: accuracy of the new class, and of the old ones before and after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carray.data.manifest import Manifest
from carray.errors import DataError
from carray.inference.dataset_predictions import predict_rows, record_model_access
from carray.inference.predictor import load_model
from carray.json_file import JsonResult
from carray.predictions.statistics import (
    Interval,
    accuracy_interval,
    mcnemar_exact,
    paired_gain,
)
from carray.records import TrialFolder
from carray.runs_folder import RunsFolder
from carray.typing import Progress


@dataclass(frozen=True)
class AddedClass(JsonResult):
    """What adding a class brought, on images that no training saw."""

    name: str
    model: str
    package: Path
    data: Path
    trials: tuple[str, ...]
    new_train: int
    replayed: int
    """Training images of the old classes."""
    split: str
    new: Interval
    """Top-1 on the new class; before it was 0."""
    new_images: int
    old_before: Interval
    """Top-1 on the old classes, by the old model."""
    old_after: Interval
    old_images: int
    change: Interval
    """Old classes, after minus before, paired."""
    change_p: float
    """McNemar's exact test, two-sided."""
    taken_for_new: int
    """Images of old classes that are now taken for the new one."""


def evaluate_added_class(
    runs: RunsFolder,
    package: Path,
    name: str,
    manifest: Manifest,
    extended: Manifest,
    trials: list[TrialFolder],
    progress: Progress,
) -> AddedClass:
    """Compare both models on the held images of the old classes, and say how the new one does."""
    split = "test" if len(manifest.rows("test")) else "val"
    new_model, new_class = load_model(runs.models / name), len(manifest.classes)
    rows, old_rows = extended.rows(split), manifest.rows(split)
    labels = extended.labels[rows]
    predicted = predict_rows(new_model, extended, rows, progress).argmax(axis=1)
    old_model = load_model(package)
    before = predict_rows(old_model, manifest, old_rows, progress).argmax(axis=1)
    if split == "test":
        record_model_access(runs, old_model.card, manifest)
        record_model_access(runs, new_model.card, extended)
    is_new = labels == new_class
    right_before = before == manifest.labels[old_rows]
    right_after = (predicted == labels)[~is_new]
    if len(right_before) != len(right_after):
        raise DataError(f"the {split} images of {manifest.folder} and {extended.folder} differ")
    only_after = int((right_after & ~right_before).sum())
    only_before = int((right_before & ~right_after).sum())
    trains = extended.labels[extended.rows("train")]
    return AddedClass(
        name=extended.classes[-1],
        model=new_model.card.name,
        package=runs.models / name,
        data=extended.folder,
        trials=tuple(trial.record().name for trial in trials),
        new_train=int((trains == new_class).sum()),
        replayed=int((trains != new_class).sum()),
        split=split,
        new=accuracy_interval((predicted == labels)[is_new]),
        new_images=int(is_new.sum()),
        old_before=accuracy_interval(right_before),
        old_after=accuracy_interval(right_after),
        old_images=len(right_after),
        change=paired_gain(right_before, right_after),
        change_p=mcnemar_exact(only_after, only_before),
        taken_for_new=int((predicted[~is_new] == new_class).sum()),
    )
