"""`calibrate_model`: when a model's sets hold the right class, and when it says "unknown"."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from carray.data.manifest import Manifest
from carray.errors import ConfigError, DataError, counted, some_of
from carray.inference.dataset_predictions import answer_rows, find_data, record_model_access
from carray.inference.inputs import find_images, find_package, runs_of
from carray.inference.neighbours import write_neighbours
from carray.inference.predictor import Model, load_model
from carray.inference.reliability import FILE, Reliability
from carray.json_file import JsonResult
from carray.predictions.conformal import (
    METHODS,
    Coverage,
    choose,
    coverage_of,
    have_own,
    measure,
    threshold,
    thresholds,
)
from carray.predictions.logits import log_softmax
from carray.predictions.scores import Labelled, fitted_temperature, make_folds
from carray.predictions.statistics import Interval, wilson
from carray.predictions.unknowns import Separation, alarm_threshold, separation
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.typing import Float32s, Labels, Progress

LEAST_IMAGES = 20  # fewer promise nothing at 95 %
NUM_FOLDS = 10


@dataclass(frozen=True)
class CalibratedModel(JsonResult):
    """What `calibrate_model` found and wrote."""

    model: str
    file: Path
    temperature: float
    """What its logits are divided by, in every form of it from now on."""
    split: str
    images: int
    sets: tuple[Coverage, ...]
    """Each method, on images of the split that its threshold was not chosen on."""
    chosen: str
    false_alarm_rate: float
    false_alarms: Interval
    """Share of known images called unknown, cross-fitted on the split."""
    unknown: Separation | None
    """How images of other things are told from the split's, where some were given."""
    test: Coverage | None
    """The chosen method on test, where that was opened."""
    notes: tuple[str, ...]


def calibrate_model(
    model: str,
    *,
    coverage: float = 0.95,
    false_alarm_rate: float = 0.05,
    unknown: Sequence[str | Path] = (),
    open_test: bool = False,
    neighbours: bool = False,
    data: str | Path | None = None,
    runs: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> CalibratedModel:
    """Choose a model's thresholds on `blend`, measure what they do, write them into its package.

    A model without a temperature gets one, so that its probabilities are true.

    Args:
        model: a package's name or folder, or a trial (`STUDY/NUMBER`).
        coverage: how often a set should hold the right class.
        false_alarm_rate: share of known images that may be called unknown.
        unknown: files or folders of images of other things, to judge "unknown" by.
        open_test: measure the sets on test too; the look is recorded.
        neighbours: keep small pictures of the training images, so that a server shows the nearest.
        data: the model's data set, where it isn't where its study had it.
        runs: the runs folder.
        progress: shows how far the images are.

    Raises:
        ConfigError: a share isn't between 0 and 1.
        RecordError: there is no such model, or its study doesn't say where its data are.
        DataError: the split is too small, an image of it is gone or can't be read, or none of
            `unknown` can be.
    """
    for option, share in (("--coverage", coverage), ("--false-alarms", false_alarm_rate)):
        if not 0 < share < 1:
            raise ConfigError(f"{option} {share} must be above 0 and below 1")
    package = find_package(RunsFolder.at(runs), model)
    where = runs_of(package, runs)
    loaded = load_model(package)
    manifest = find_data(where, loaded.card, data)
    split = manifest.judging_split
    rows = manifest.rows(split)
    if len(rows) < LEAST_IMAGES:
        raise DataError(
            f"{split} has {counted(len(rows), 'image')} and thresholds need at least "
            f"{LEAST_IMAGES}: prepare the data with a larger --blend-size"
        )
    far, unreadable = _energies_of(loaded, unknown, progress) if unknown else (None, [])
    log_p, energies = answer_rows(loaded, manifest, rows, progress)
    labels = manifest.labels[rows]
    if loaded.card.temperature == 1:
        beside = _on_val(loaded, manifest, progress) if split != "val" else None
        loaded, log_p = _at_temperature(loaded, fitted_temperature(log_p, labels, beside), log_p)
    p = np.exp(log_p)
    found = tuple(measure(p, labels, method, coverage) for method in METHODS)
    best = choose(found).method
    limit, limits = threshold(p, labels, best, coverage), thresholds(p, labels, best, coverage)
    own = int(have_own(labels, len(limits), coverage).sum())
    alarm = alarm_threshold(energies, false_alarm_rate)
    alarms = _false_alarms(energies, labels, false_alarm_rate)
    reliability = Reliability(
        split=split,
        images=len(rows),
        coverage=coverage,
        method=best,
        set_limit=_finite(limit),
        class_limits=tuple(map(_finite, limits.tolist())) if own else (),
        false_alarm_rate=false_alarm_rate,
        energy_limit=_finite(alarm),
        energy_of="mean logits",
        train_counts=_train_counts(manifest),
        measured={"sets": [each.as_dict() for each in found], "false_alarms": alarms.value},
    )
    reliability.write(package / FILE)
    loaded.card.write(package / "card.json")
    kept = write_neighbours(package, loaded, manifest, progress) if neighbours else 0
    where.keep(package)
    opens = open_test and manifest.rows("test").size > 0
    test = _on_test(where, loaded, manifest, reliability, progress) if opens else None
    return CalibratedModel(
        *(package.name, package / FILE, loaded.card.temperature, split, len(rows), found, best),
        *(false_alarm_rate, alarms),
        None if far is None else separation(energies, far, alarm),
        test,
        (*unreadable, *_notes(reliability, kept, own, lacks_test=open_test and test is None)),
    )


def _on_val(model: Model, manifest: Manifest, progress: Progress) -> Labelled | None:
    """Return what a model says of `val`; None of one that was trained on some of it."""
    rows = manifest.rows("val")
    if not len(rows) or any(member.card.config.fold is not None for member in model.members):
        return None
    return answer_rows(model, manifest, rows, progress)[0], manifest.labels[rows]


def _at_temperature(model: Model, temperature: float, log_p: Float32s) -> tuple[Model, Float32s]:
    card = model.card.model_copy(update={"temperature": temperature})
    return replace(model, card=card), log_softmax(log_p / np.float32(temperature))


def _train_counts(manifest: Manifest) -> tuple[int, ...]:
    labels = manifest.labels[manifest.rows("train")]
    return tuple(np.bincount(labels, minlength=len(manifest.classes)).tolist())


def _finite(limit: float) -> float | None:
    return limit if np.isfinite(limit) else None


def _false_alarms(energies: Float32s, labels: Labels, rate: float) -> Interval:
    """Cross-fit the threshold; return the share of the images left out that it calls unknown."""
    alarms = 0
    for fold in make_folds(labels, num_folds=NUM_FOLDS):
        others = np.setdiff1d(np.arange(len(labels)), fold)
        alarms += int((energies[fold] > alarm_threshold(energies[others], rate)).sum())
    return wilson(float(alarms), len(labels))


def _energies_of(
    model: Model, sources: Sequence[str | Path], progress: Progress
) -> tuple[Float32s, list[str]]:
    """Return the energies of the images that can be read, and a note on the others."""
    found = find_images(sources)
    done = model.predict_files(found.paths, lambda _, *of: progress("unknown images", *of))
    unreadable = [f"{found.names[place]} ({why})" for place, why in done.unreadable.items()]
    named_some = some_of(unreadable)
    if not done.places:
        raise DataError(f"no image of --unknown can be read: {named_some}")
    left_out = counted(len(unreadable), "image of --unknown is", "images of --unknown are")
    notes = [f"{left_out} left out as unreadable: {named_some}"] if unreadable else []
    return done.energies, notes


def _on_test(
    runs: RunsFolder, model: Model, manifest: Manifest, found: Reliability, progress: Progress
) -> Coverage:
    record_model_access(runs, model.card, manifest)
    rows = manifest.rows("test")
    p = np.exp(answer_rows(model, manifest, rows, progress)[0])
    return coverage_of(found.sets(p), manifest.labels[rows], found.method, found.coverage)


def _notes(found: Reliability, kept: int, own: int, *, lacks_test: bool) -> tuple[str, ...]:
    shown = f"small pictures of {kept} training images are kept: a server shows the nearest"
    notes = [shown] if kept else []
    if lacks_test:
        notes.append("there is no test split to open")
    if found.split == "val":
        notes.append("there is no blend split: val, which steered training, makes sets too small")
    if found.set_limit is None:
        notes.append(
            f"{found.images} images are too few for sets at {found.coverage:g}: all are in"
        )
    if own:
        notes.append(f"classes with a threshold of their own: {own} of {len(found.class_limits)}")
    if found.energy_limit is None:
        notes.append(
            f"{found.images} images are too few to promise {found.false_alarm_rate:g} false "
            "alarms: nothing is called unknown"
        )
    return tuple(notes)
