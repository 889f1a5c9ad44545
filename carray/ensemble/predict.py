"""Predictions of image files as CSV: likeliest classes with probabilities, or a submission."""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from carray.ensemble.package import load_model
from carray.ensemble.sources import ImageList, find_images, find_package, path_column, read_csv
from carray.errors import ConfigError, DataError
from carray.files import written_aside
from carray.progress import Advance, silent
from carray.records import RunsFolder

if TYPE_CHECKING:
    from carray.ensemble.card import Card
    from carray.ensemble.model import Predictions

SUBMISSION_COLUMNS = ("Id", "Category")  # as Kaggle's car competitions have them
SHOWN = 10  # images that a summary names

Progress = Callable[[str, int], AbstractContextManager[Advance]]
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
        told = {name: str(getattr(self, name)) for name in ("out", "model")}
        counts = {"images": self.images, "seconds": round(self.seconds, 3)}
        return {**told, **counts, "unreadable": self.unreadable, "notes": list(self.notes)}


def predict_to_csv(
    model: str,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    top_k: int = 3,
    submission: bool = False,
    sample: str | Path | None = None,
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
        sample: a sample submission: its columns, its ids, its order.
        runs: the runs folder.
        progress: shows how far the images are.

    Raises:
        RecordError: there is no such model.
        DataError: there are no images, or an id of `sample` has none.
    """
    start = time.monotonic()
    runs_folder = RunsFolder.at(runs)
    if top_k < 1:
        raise ConfigError(f"--top-k {top_k} must be at least 1")
    package = find_package(runs_folder, model)
    found = find_images(images)
    wanted = _sample_ids(Path(sample)) if sample else None
    if wanted is not None:
        found = _matched(found, wanted[1], Path(str(sample)))
    loaded = load_model(package)
    predicted = loaded.predict_files(found.paths, progress, found.boxes)
    if submission or wanted is not None:
        columns = wanted[0] if wanted else SUBMISSION_COLUMNS
        rows = _submission_rows(found, predicted, loaded.classes, columns)
    else:
        rows = _top_rows(found, predicted, loaded.classes, min(top_k, len(loaded.classes)))
    _write(Path(out), rows)
    return PredictedFile(
        Path(out),
        package,
        len(predicted.places),
        {found.names[place]: why for place, why in predicted.unreadable.items()},
        (*_view_notes(loaded.card), *_notes(loaded.card.crop, found)),
        time.monotonic() - start,
        tuple(rows),
    )


def _view_notes(card: Card) -> tuple[str, ...]:
    if card.tta is None:
        return ()
    return (f"every image was seen in {len(card.tta.views)} views ({card.views.label})",)


def _notes(crop: str, found: ImageList) -> tuple[str, ...]:
    uncut = found.boxes.count(None)
    if crop != "box" or not uncut:
        return ()
    return (
        f"the model was trained on images cut to their boxes, and {uncut} of these images have "
        "none: give a CSV with box_x1, box_y1, box_x2, box_y2, or images that are cut already",
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


def _submission_rows(
    found: ImageList, predicted: Predictions, classes: Sequence[str], columns: Sequence[str]
) -> list[Row]:
    """Return one row an image; an unreadable one gets the likeliest class of the others."""
    picks = predicted.probabilities.argmax(axis=1)
    fallback = int(np.bincount(picks, minlength=len(classes)).argmax())
    known = dict(zip(predicted.places, picks.tolist(), strict=True))
    chosen = [known.get(place, fallback) for place in range(len(found))]
    identity, category = columns[0], columns[1]
    return [
        {identity: name, category: classes[pick]}
        for name, pick in zip(found.names, chosen, strict=True)
    ]


def _sample_ids(sample: Path) -> tuple[tuple[str, str], list[str]]:
    """Return a sample submission's two columns and its ids.

    Raises:
        DataError: it has fewer than two columns, or no rows.
    """
    rows = read_csv(sample)
    columns = list(rows[0]) if rows else []
    if len(columns) < 2:
        raise DataError(
            f"the sample submission {sample} must have two columns, such as Id,Category"
        )
    identity = path_column(columns)
    category = next(column for column in columns if column != identity)
    return (identity, category), [row[identity] for row in rows]


def _matched(found: ImageList, ids: Sequence[str], sample: Path) -> ImageList:
    """Return the images of the sample's ids, with or without file ending, in its order."""
    by_name: dict[str, int] = {}
    for place, (path, name) in enumerate(zip(found.paths, found.names, strict=True)):
        for known in (path.stem, path.name, str(Path(name).with_suffix("")), name):
            by_name[known] = place
    missing = [identity for identity in ids if identity not in by_name]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(ids)} ids of {sample} have no image, the first is "
            f"{missing[0]!r}: give the folder that holds them"
        )
    return replace(found.take([by_name[identity] for identity in ids]), names=tuple(ids))


def _write(out: Path, rows: Sequence[Row]) -> None:
    with written_aside(out) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
