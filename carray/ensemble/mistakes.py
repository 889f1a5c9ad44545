"""What a model gets wrong: its misclassified images, most confident first, and confused pairs."""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from carray.data.manifest import Manifest
from carray.data.parallel import Progress
from carray.ensemble.logits import Floats, Labels, Rows
from carray.ensemble.openings import looks_text
from carray.ensemble.sources import find_package
from carray.ensemble.statistics import Interval, share_right
from carray.errors import ConfigError, DataError
from carray.files import written_aside
from carray.progress import silent
from carray.records import RunsFolder

COLUMNS = ("image", "true", "predicted", "confidence", "true_probability", "true_rank", "path")
SHOWN_PAIRS = 10


@dataclass(frozen=True)
class Mistake:
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


@dataclass(frozen=True)
class ConfusedPair:
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    count: int
    of: int
    """Images of the true class."""


@dataclass(frozen=True)
class Mistakes:
    """What a model gets wrong on one split."""

    model: str
    split: str
    images: int
    accuracy: Interval
    mistakes: tuple[Mistake, ...]
    """Most confident first."""
    pairs: tuple[ConfusedPair, ...]
    """Most frequent first."""
    models_that_opened_test: int
    sheet: Path | None = None
    table: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        files = {name: str(getattr(self, name) or "") for name in ("sheet", "table")}
        return {**asdict(self), **files}


def show_mistakes(
    model: str,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] = "errors",
    *,
    split: str = "test",
    shown: int = 12,
    runs: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Mistakes:
    """Find a model's mistakes; write `errors.csv`, and `errors.png` with the `shown` worst.

    Args:
        model: a package's name or folder, or a trial (`STUDY/NUMBER`).
        data: a folder made by `carray.prepare`, with the model's classes.
        out: the folder to write to.
        split: whose images; looking at `test` is recorded.
        shown: mistakes on the sheet, most confident first.
        runs: the runs folder.
        progress: shows how far the images are.

    Raises:
        RecordError: there is no such model.
        DataError: other classes than the model's, or no images in the split.
        ConfigError: `shown` isn't positive.
    """
    if shown < 1:
        raise ConfigError(f"--count {shown} must be at least 1")
    from carray.ensemble.evaluate import check_classes, open_test_of, predict_rows
    from carray.ensemble.package import load_model

    where = RunsFolder.at(runs)
    manifest, package = Manifest.load(Path(data)), find_package(where, model)
    rows = manifest.rows(split)
    if len(rows) == 0:
        raise DataError(f"{data} has no {split} images: name another with --split")
    loaded = load_model(package)
    check_classes(loaded.classes, manifest.classes, f"the model {model}", str(data))
    log_p = predict_rows(loaded, manifest, rows, progress)
    opened = open_test_of(where, loaded.card, manifest) if split == "test" else 0
    found = find_mistakes(loaded.card.name, manifest, split, log_p, opened)
    return _written(found, manifest, Path(out), shown)


def find_mistakes(
    model: str, manifest: Manifest, split: str, log_p: Floats, opened: int
) -> Mistakes:
    """Return the mistakes in log-probabilities (images of the split, classes)."""
    rows = manifest.rows(split)
    labels, picks = manifest.labels[rows], log_p.argmax(axis=1)
    wrong = np.flatnonzero(picks != labels)
    order = wrong[np.argsort(-log_p[wrong, picks[wrong]], kind="stable")]
    counts = Counter(zip(labels[wrong].tolist(), picks[wrong].tolist(), strict=True))
    of = np.bincount(labels, minlength=len(manifest.classes))
    names = manifest.classes
    return Mistakes(
        model=model,
        split=split,
        images=len(rows),
        accuracy=share_right(picks == labels),
        mistakes=tuple(_mistake(manifest, rows, labels, log_p, place) for place in order.tolist()),
        pairs=tuple(
            ConfusedPair(names[true], names[taken_for], count, int(of[true]))
            for (true, taken_for), count in sorted(counts.items(), key=lambda item: -item[1])
        ),
        models_that_opened_test=opened,
    )


def _mistake(manifest: Manifest, rows: Rows, labels: Labels, log_p: Floats, place: int) -> Mistake:
    own, said = log_p[place], int(log_p[place].argmax())
    true = int(labels[place])
    entry = manifest.included.iloc[int(rows[place])]
    return Mistake(
        row=int(rows[place]),
        image=str(entry["image_id"]),
        path=str(entry["path"]),
        true=manifest.classes[true],
        predicted=manifest.classes[said],
        confidence=float(np.exp(own[said])),
        true_probability=float(np.exp(own[true])),
        true_rank=int((own > own[true]).sum()) + 1,
    )


def _written(found: Mistakes, manifest: Manifest, out: Path, shown: int) -> Mistakes:
    from carray.ensemble.mistakes_sheet import draw_sheet

    table = out / "errors.csv"
    with written_aside(table) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for one in found.mistakes:
            p = (f"{one.confidence:.6f}", f"{one.true_probability:.6f}")
            writer.writerow([one.image, one.true, one.predicted, *p, one.true_rank, one.path])
    if not found.mistakes:
        return replace(found, table=table)
    sheet = out / "errors.png"
    with written_aside(sheet) as aside:
        draw_sheet(found, manifest, shown).save(aside, format="png")
    return replace(found, table=table, sheet=sheet)


def mistakes_lines(found: Mistakes) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    accuracy = found.accuracy
    lines = [
        f"{found.model} on {found.images} images of {found.split}: {len(found.mistakes)} wrong, "
        f"top-1 {accuracy.value:.4f} [{accuracy.low:.4f}, {accuracy.high:.4f}]"
    ]
    if found.pairs:
        lines += ["", f"{'true class':<40}{'taken for':<40}{'images':>8}{'of':>8}"]
        lines += [
            f"{pair.true[:38]:<40}{pair.predicted[:38]:<40}{pair.count:>8}{pair.of:>8}"
            for pair in found.pairs[:SHOWN_PAIRS]
        ]
        more = len(found.pairs) - SHOWN_PAIRS
        lines += [f"and {more} more pairs"] if more > 0 else []
    if found.models_that_opened_test:
        lines += ["", looks_text(found.models_that_opened_test)]
    lines += [f"sheet: {found.sheet}"] if found.sheet else []
    return [*lines, f"table: {found.table}"]
