"""What a model gets wrong: its misclassified images, most confident first, and confused pairs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carray.data.label_parts import LabelParts
from carray.data.manifest import Manifest
from carray.inference.held_predictions import HeldPredictions
from carray.json_file import JsonResult
from carray.predictions.levels import LevelScore, level_scores, mistake_kind
from carray.predictions.statistics import Interval, accuracy_interval
from carray.typing import Float32s, Labels, Rows

COLUMNS = ("image", "true", "predicted", "confidence", "true_probability", "true_rank", "path")
WRONG_IN = "wrong_in"  # a further column, where class names have parts
SHOWN_PAIRS = 10


@dataclass(frozen=True)
class MisclassifiedImage:
    """One misclassified image."""

    row: int
    """In the manifest."""
    image: str
    path: str
    true: str
    predicted: str
    confidence: float
    """Probability of the predicted class."""
    true_probability: float
    true_rank: int
    """1-based place of the true class."""
    wrong_in: str = ""
    """The coarsest part of the name that is wrong, as in `make`; "" where names have no parts."""


@dataclass(frozen=True)
class ConfusedPair:
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    count: int
    of: int
    """Images of the true class."""


@dataclass(frozen=True)
class ErrorAnalysis(JsonResult):
    """What a model gets wrong on one split."""

    model: str
    split: str
    images: int
    accuracy: Interval
    mistakes: tuple[MisclassifiedImage, ...]
    """Most confident first."""
    pairs: tuple[ConfusedPair, ...]
    """Most frequent first."""
    models_that_opened_test: int
    levels: tuple[LevelScore, ...] = ()
    """By make, model and so on; () where class names don't tell."""
    wrong_otherwise: int = 0
    """Mistakes between names that differ in no part, or couldn't be read."""
    notes: tuple[str, ...] = ()
    sheet: Path | None = None
    table: Path | None = None


def find_misclassified(
    manifest: Manifest, said: HeldPredictions, parts: LabelParts | None = None
) -> ErrorAnalysis:
    """Return the mistakes in what a model said of a split."""
    log_p, labels, rows = said.log_p, said.labels, manifest.rows(said.split)
    picks = log_p.argmax(axis=1)
    wrong = np.flatnonzero(picks != labels)
    order = wrong[np.argsort(-log_p[wrong, picks[wrong]], kind="stable")]
    counts = Counter(zip(labels[wrong].tolist(), picks[wrong].tolist(), strict=True))
    of = np.bincount(labels, minlength=len(manifest.classes))
    names = manifest.classes
    levels, otherwise = level_scores(parts, picks, labels) if parts else ((), 0)
    return ErrorAnalysis(
        model=said.model,
        split=said.split,
        images=len(rows),
        accuracy=accuracy_interval(picks == labels),
        mistakes=tuple(
            _misclassified(manifest, rows, labels, log_p, place, parts) for place in order.tolist()
        ),
        pairs=tuple(
            ConfusedPair(names[true], names[taken_for], count, int(of[true]))
            for (true, taken_for), count in sorted(counts.items(), key=lambda item: -item[1])
        ),
        models_that_opened_test=said.models_that_opened_test,
        levels=levels,
        wrong_otherwise=otherwise,
        notes=tuple(parts.notes()) if parts else (),
    )


def _misclassified(
    manifest: Manifest,
    rows: Rows,
    labels: Labels,
    log_p: Float32s,
    place: int,
    parts: LabelParts | None,
) -> MisclassifiedImage:
    own, predicted = log_p[place], int(log_p[place].argmax())
    true = int(labels[place])
    entry = manifest.included.iloc[int(rows[place])]
    return MisclassifiedImage(
        row=int(rows[place]),
        image=str(entry["image_id"]),
        path=str(entry["path"]),
        true=manifest.classes[true],
        predicted=manifest.classes[predicted],
        confidence=float(np.exp(own[predicted])),
        true_probability=float(np.exp(own[true])),
        true_rank=int((own > own[true]).sum()) + 1,
        wrong_in=mistake_kind(parts, true, predicted) if parts else "",
    )
