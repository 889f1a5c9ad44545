"""Predictions of image files as CSV: likeliest classes with probabilities, or a submission."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from carray.errors import ConfigError, DataError, counted
from carray.files import check_target, write_csv
from carray.inference.card import Card
from carray.inference.inputs import ImageList, find_images, find_package
from carray.inference.level_answers import (
    LevelRequest,
    level_answers,
    level_rows,
    temperature_of,
)
from carray.inference.package import is_measured
from carray.inference.predictor import load_model
from carray.inference.submission import (
    CATEGORY_COLUMNS,
    Sample,
    category_rows,
    class_columns,
    probability_rows,
)
from carray.inference.versions import version_note
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.typing import Progress

if TYPE_CHECKING:
    from carray.inference.predictor import Predictions

SHOWN = 10  # images that a summary names
SHOWN_MERGES = 4

Row = dict[str, str]


@dataclass(frozen=True)
class PredictedFile:
    """What `predict_to_csv` did."""

    out: Path
    model: Path
    images: int
    """Predicted."""
    unreadable: dict[str, str]
    """Image -> why it could not be read."""
    notes: tuple[str, ...]
    seconds: float
    rows: tuple[Row, ...]
    """What was written."""

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the rows as JSON-able data."""
        paths = {name: str(getattr(self, name)) for name in ("out", "model")}
        counts = {"images": self.images, "seconds": round(self.seconds, 3)}
        return {**paths, **counts, "unreadable": self.unreadable, "notes": list(self.notes)}


def predict_to_csv(
    model: str,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    top_k: int = 3,
    submission: bool = False,
    probabilities: bool = False,
    sample: str | Path | None = None,
    level: LevelRequest | None = None,
    runs: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> PredictedFile:
    """Predict image files and write a CSV; unreadable images are named, not fatal.

    Args:
        model: a package's folder or name, or a trial (`STUDY/NUMBER` or its folder).
        images: files, folders, CSV files of paths.
        out: the CSV to write.
        top_k: how many classes a row holds, likeliest first.
        submission: write `Id,Category` rows, the ids being the images' names.
        probabilities: write a column for each class.
        sample: a sample submission: its columns, its ids, its order; with a column for each class
            (under the name that it had before merging, too) probabilities are written.
        level: answer by make, model and so on, as deep as the model is sure.
        runs: the runs folder.
        progress: shows how far the images are.

    Raises:
        ConfigError: `out` can't be written, or class names don't tell the level.
        RecordError: there is no such model.
        DataError: there are no images or none can be read, an id of `sample` has none, or one of
            its columns is no class of the model, or the reverse.
    """
    start = time.monotonic()
    runs_folder = RunsFolder.at(runs)
    if top_k < 1:
        raise ConfigError(f"--top-k {top_k} must be at least 1")
    check_target(Path(out))
    package = find_package(runs_folder, model)
    found = find_images(images)
    template = Sample.read(Path(sample)) if sample else None
    if template:
        found = template.matched(found)
    card = Card.read(package / "card.json")
    columns = _columns(template, card, probabilities)
    if level and (columns or submission or template):
        raise ConfigError("--by goes without --submission, --probabilities and --sample")
    reader = level.reader(card.classes) if level else None
    loaded = load_model(package)
    predicted = loaded.predict_files(found.paths, progress, found.boxes)
    if not predicted.places:
        place, why = next(iter(predicted.unreadable.items()))
        raise DataError(
            f"of {counted(len(found.paths), 'image')} none can be read; {found.names[place]}: {why}"
        )
    temperature, calibrated = temperature_of(runs_folder, package) if reader else (1.0, "")
    identity = template.identity if template else CATEGORY_COLUMNS[0]
    if columns:
        rows = probability_rows(found, predicted, identity, columns)
    elif submission or template:
        category = template.columns[0] if template else CATEGORY_COLUMNS[1]
        rows = category_rows(found, predicted, loaded.classes, (identity, category))
    elif reader:
        answers = level_answers(reader, predicted.probabilities, temperature)
        rows = level_rows(found, predicted, loaded.classes, answers)
    else:
        rows = _top_rows(found, predicted, loaded.classes, min(top_k, len(loaded.classes)))
    write_csv(Path(out), list(rows[0]), (row.values() for row in rows))
    return PredictedFile(
        Path(out),
        package,
        len(predicted.places),
        {found.names[place]: why for place, why in predicted.unreadable.items()},
        (
            *_version_notes(package, card),
            *_view_notes(card),
            *_merge_notes(card),
            *_notes(card.crop, found),
            *found.readings,
            *([calibrated, *reader.parts.notes()] if reader else []),
        ),
        time.monotonic() - start,
        tuple(rows),
    )


def _version_notes(package: Path, card: Card) -> tuple[str, ...]:
    """Say which of several versions of the model answered, and whether it was ever measured."""
    note = version_note(package)
    if not note:
        return ()
    return (note + ("" if is_measured(card.results) else "; it was not measured on test"),)


def _view_notes(card: Card) -> tuple[str, ...]:
    if card.tta is None:
        return ()
    return (f"every image was seen in {len(card.tta.views)} views ({card.tta.label})",)


def _merge_notes(card: Card) -> tuple[str, ...]:
    """Say which classes are several of the source's: their names may be asked for elsewhere."""
    if not card.merge:
        return ()
    merges = [f"{old!r} is {new!r}" for old, new in card.merge.items()][:SHOWN_MERGES]
    more = len(card.merge) - SHOWN_MERGES
    return (
        f"classes were merged: {'; '.join(merges)}" + (f"; and {more} more" if more > 0 else ""),
    )


def _columns(
    sample: Sample | None, card: Card, probabilities: bool
) -> dict[str, tuple[int, float]]:
    """Return the class of each probability column; none where no probabilities are asked for."""
    if sample and len(sample.columns) > 1:  # one for each class
        return class_columns(sample.columns, card.classes, card.merge, sample.file)
    if probabilities and sample:
        raise ConfigError(
            f"--probabilities needs one column a class, and {sample.file} has "
            f"{sample.columns[0]!r} alone: drop --sample or --probabilities"
        )
    return {name: (place, 1.0) for place, name in enumerate(card.classes)} if probabilities else {}


def _notes(crop: str, found: ImageList) -> tuple[str, ...]:
    uncut = found.boxes.count(None)
    if crop != "box" or not uncut:
        return ()
    return (
        "the model was trained on images cut to their boxes, and "
        f"{counted(uncut, 'image here has', 'images here have')} none: give a CSV with box_x1, "
        "box_y1, box_x2, box_y2, or images that are cut already",
    )


def _top_rows(
    found: ImageList, predicted: Predictions, classes: Sequence[str], top_k: int
) -> list[Row]:
    """Return one row an image, in order; an unreadable one has empty classes and its reason."""
    known = dict(zip(predicted.places, predicted.probabilities, strict=True))
    rows = []
    for place, name in enumerate(found.names):
        row = {"image": name}
        p = known.get(place)
        order = [] if p is None else np.argsort(-p, kind="stable")[:top_k].tolist()
        for rank in range(top_k):
            row[f"class_{rank + 1}"] = classes[order[rank]] if order else ""
            row[f"probability_{rank + 1}"] = "" if p is None else f"{p[order[rank]]:.6f}"
        rows.append(row | {"error": predicted.unreadable.get(place, "")})
    return rows
