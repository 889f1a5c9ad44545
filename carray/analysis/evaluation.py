"""What a model is worth on a held split or on new labelled images, class by class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carray.data.label_parts import AUTO, read_label_parts
from carray.data.manifest import MANIFEST_FILE, SPLITS
from carray.ensemble.result import AS_IT_IS
from carray.errors import CarrayError, DataError, counted
from carray.files import sha256_of
from carray.inference.card import Card
from carray.inference.held_predictions import HeldPredictions, find_held_model, predictions_on
from carray.inference.inputs import find_package
from carray.inference.labelled_images import read_labelled_images
from carray.json_file import JsonResult
from carray.predictions.calibration import Calibration, calibration_of
from carray.predictions.labels import study_manifest
from carray.predictions.levels import LevelScore, level_scores
from carray.predictions.per_class import PerClass, per_class_scores
from carray.predictions.statistics import Interval, Scores, accuracy_interval, scores_of_log_p
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.typing import Progress

TOP_K = 5
FLATTERS = {
    "val": "val chose the epoch that was kept, and the best trial: the figures flatter",
    "blend": "blend chose the rule and the weights of an ensemble: of one, the figures flatter",
}
NO_PARTS = "class names tell no make, model or year: --label-parts says how to read them"


@dataclass(frozen=True)
class Evaluation(JsonResult):
    """A model on some images, with 95 % intervals."""

    model: str
    on: str
    """The split, or the folder or table of new images."""
    images: int
    scores: Scores
    top5: Interval
    per_class: PerClass
    calibration: Calibration
    levels: tuple[LevelScore, ...]
    """By make, model and so on; () where names don't tell."""
    wrong_otherwise: int
    """Images whose class and answer differ in no part of the name, or couldn't be read."""
    notes: tuple[str, ...]
    models_that_opened_test: int
    """0 where the test split stayed closed."""
    table: Path | None = None
    picture: Path | None = None


def evaluate(
    model: str,
    source: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    label_parts: str = AUTO,
    label_column: str | None = None,
    runs: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Evaluation:
    """Judge a model on a split of its study, in a second from stored logits, or on new images.

    Args:
        model: a package's name or folder, or a trial (`STUDY/NUMBER`).
        source: None for the study's own data; else a folder made by `carray.prepare`, a folder of
            class folders, or a table with labels.
        split: of the study (None: `val`) or of `source` (None: `test` of a prepared folder, else
            all images); looking at a prepared `test` is recorded.
        label_parts: how class names are read, as `carray.data.label_parts` takes it.
        label_column: of a table.
        runs: the runs folder.
        seed: of the bootstrap.
        progress: shows how far the images are.

    Raises:
        RecordError: there is no such model, or its logits and data are gone.
        DataError: `source` holds no images of the model's classes, or can be read in two ways.
        ConfigError: `label_parts` can't be read.
    """
    where, notes = RunsFolder.at(runs), list[str]()
    if source is None:
        held = find_held_model(where, model)
        found = held.predictions(split or "val", progress)
        notes += [AS_IT_IS] if held.package is None else []
        notes += [FLATTERS[found.split]] if found.split in FLATTERS else []
    elif (Path(source) / MANIFEST_FILE).exists():
        _, found = predictions_on(where, model, Path(source), split or "test", progress)
    else:
        found, more = _on_new(where, model, Path(source), split, label_column, progress)
        notes += more
    return _judged(found, label_parts, notes, seed)


def _judged(
    found: HeldPredictions, label_parts: str, notes: Sequence[str], seed: int
) -> Evaluation:
    log_p, labels = found.log_p, found.labels
    answers = log_p.argmax(axis=1)
    own = log_p[np.arange(len(labels)), labels]
    parts = read_label_parts(found.classes, label_parts)
    levels, otherwise = level_scores(parts, answers, labels) if parts else ((), 0)
    return Evaluation(
        model=found.model,
        on=found.split,
        images=len(labels),
        scores=scores_of_log_p(log_p, labels, seed),
        top5=accuracy_interval((log_p > own[:, None]).sum(axis=1) < TOP_K),
        per_class=per_class_scores(answers, labels, found.classes, seed),
        calibration=calibration_of(log_p, labels, seed),
        levels=levels,
        wrong_otherwise=otherwise,
        notes=(*notes, *(parts.notes() if parts else [NO_PARTS])),
        models_that_opened_test=found.models_that_opened_test,
    )


def _known_images(where: RunsFolder, card: Card, paths: Sequence[Path]) -> list[str]:
    """Say how many of the images are in the data that the model was made with, split by split."""
    try:
        manifest = study_manifest(where.find_study(card.study).record())
    except CarrayError:
        return []  # its data aren't here: nothing can be told
    table = manifest.included
    split_of = dict(zip(table["content_hash"], table["split"], strict=True))
    counts: Counter[str | None] = Counter()
    for path in paths:
        with suppress(OSError):  # those that can't be read are told by who predicts them
            counts[split_of.get(sha256_of(path))] += 1
    known = [f"{counts[split]} in {split}" for split in SPLITS if counts[split]]
    if not known:
        return []
    flatter = any(counts[split] for split in ("train", *FLATTERS))
    meaning = [
        *(["what made a model flatters it"] if flatter else []),
        *(["a look at test is recorded with --split test alone"] if counts["test"] else []),
    ]
    return [f"images of the model's own data: {', '.join(known)}; {', and '.join(meaning)}"]


def _on_new(
    where: RunsFolder,
    model: str,
    source: Path,
    split: str | None,
    label_column: str | None,
    progress: Progress,
) -> tuple[HeldPredictions, list[str]]:
    """Predict new images; those that can't be read are left out, and told."""
    from carray.inference.predictor import load_model

    package = find_package(where, model)
    card = Card.read(package / "card.json")
    given = read_labelled_images(source, card.classes, card.merge, split, label_column)
    loaded = load_model(package)
    done = loaded.predict_files(given.images.paths, progress, given.images.boxes)
    notes = [*given.notes, *_known_images(where, card, given.images.paths)]
    if done.unreadable:
        place, why = next(iter(done.unreadable.items()))
        notes.append(
            f"{counted(len(done.unreadable), 'image was', 'images were')} left out as unreadable, "
            f"the first is {given.images.names[place]}: {why}"
        )
    if not done.places:
        raise DataError(f"no image of {source} can be read: {notes[-1]}")
    log_p = np.log(np.maximum(done.probabilities, np.finfo(np.float32).tiny))
    labels = given.labels[list(done.places)]
    on = f"{source}{f' ({split})' if split else ''}"
    return HeldPredictions(card.name, on, card.classes, log_p, labels), notes
