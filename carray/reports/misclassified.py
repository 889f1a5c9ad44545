"""The error sheet and table: misclassified images beside examples of both of their classes."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from carray.analysis.misclassified import (
    COLUMNS,
    WRONG_IN,
    ConfusedPair,
    ErrorAnalysis,
    MisclassifiedImage,
    find_misclassified,
)
from carray.data.label_parts import AUTO, read_label_parts
from carray.data.manifest import Manifest
from carray.drawing import EMPTY, INK, MUTED, PAPER, Fonts, fitted, save_png
from carray.errors import ConfigError, counted
from carray.files import write_csv
from carray.inference.held_predictions import predictions_on
from carray.predictions.test_access import access_text
from carray.progress import silent
from carray.reports.evaluation import level_lines
from carray.reports.pictures.sample_sheet import whole_image
from carray.reports.table import interval_text, table
from carray.runs_folder import RunsFolder
from carray.typing import Progress

EXAMPLES = 2  # of each of the two classes
TILE, GAP, MARGIN, CAPTION = 150, 6, 18, 46  # pixels
BLOCKS_A_ROW = 2
SHOWN_PAIRS = 8
PAIRS = ("true class:<40", "taken for:<40", "images:>8", "of:>8")
WRONG, RIGHT, TAKEN = "#B2182B", "#1B7837", "#0072B2"  # told apart by colour-blind readers too


def draw_sheet(found: ErrorAnalysis, manifest: Manifest, shown: int) -> Image.Image:
    """Draw the `shown` most confident mistakes and the most confused pairs."""
    worst = found.mistakes[:shown]
    fonts = Fonts(" ".join(manifest.classes))
    block = (1 + 2 * EXAMPLES) * (TILE + GAP) + 2 * GAP
    rows = -(-len(worst) // BLOCKS_A_ROW)
    pairs = found.pairs[:SHOWN_PAIRS]
    head, foot = 84, 40 + 24 * -(-len(pairs) // BLOCKS_A_ROW)
    width = 2 * MARGIN + BLOCKS_A_ROW * block + (BLOCKS_A_ROW - 1) * 2 * MARGIN
    step = TILE + CAPTION + MARGIN
    sheet = Image.new("RGB", (width, head + rows * step + foot + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    _draw_head(pen, found, fonts)
    for number, mistake in enumerate(worst):
        x = MARGIN + number % BLOCKS_A_ROW * (block + 2 * MARGIN)
        _draw_block(sheet, pen, (x, head + number // BLOCKS_A_ROW * step), mistake, manifest, fonts)
    _draw_pairs(pen, head + rows * step, width, pairs, fonts)
    return sheet


def _draw_head(pen: ImageDraw.ImageDraw, found: ErrorAnalysis, fonts: Fonts) -> None:
    accuracy = found.accuracy
    images = counted(found.images, f"{found.split} image")
    pen.text(
        (MARGIN, 14),
        f"{found.model}: {len(found.mistakes)} of {images} wrong "
        f"(top-1 {accuracy.value:.3f}, 95 % {accuracy.low:.3f} to {accuracy.high:.3f}); "
        "the most confident of them",
        INK,
        fonts.large,
    )
    x = float(MARGIN)
    for colour, words in (
        (WRONG, "the misclassified image"),
        (RIGHT, "training images of its true class"),
        (TAKEN, "training images of the class that it was taken for"),
    ):
        pen.rectangle((x, 53, x + 14, 67), fill=colour)
        pen.text((x + 22, 50), words, MUTED, fonts.normal)
        x += 60 + pen.textlength(words, fonts.normal)


def _draw_block(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    mistake: MisclassifiedImage,
    manifest: Manifest,
    fonts: Fonts,
) -> None:
    x, y = corner
    width = (1 + 2 * EXAMPLES) * (TILE + GAP) + 2 * GAP
    taken = f"taken for {mistake.predicted} ({mistake.confidence:.0%})"
    true = f"is {mistake.true} ({_percent(mistake.true_probability)}, place {mistake.true_rank})"
    pen.text((x, y), fitted(pen, taken, width, fonts.normal), TAKEN, fonts.normal)
    pen.text((x, y + 21), fitted(pen, true, width, fonts.normal), RIGHT, fonts.normal)
    shown = [(mistake.row, WRONG)]
    shown += [(row, RIGHT) for row in example_rows(manifest, mistake.true, mistake.row)]
    shown += [(row, TAKEN) for row in example_rows(manifest, mistake.predicted, mistake.row)]
    for place, (row, colour) in enumerate(shown):
        extra = (0 if place == 0 else GAP) + (GAP if place > EXAMPLES else 0)
        left = x + place * (TILE + GAP) + extra
        tile = _tile(manifest, row)
        sheet.paste(tile, (left, y + CAPTION))
        box = (left, y + CAPTION, left + TILE - 1, y + CAPTION + TILE - 1)
        pen.rectangle(box, outline=colour, width=4 if place == 0 else 2)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "under 1%"


def example_rows(manifest: Manifest, name: str, turn: int) -> list[int]:
    """Return `EXAMPLES` training rows of a class, others for another `turn`; no near-duplicates."""
    rows = manifest.rows("train")
    own = rows[manifest.labels[rows] == manifest.classes.index(name)]
    groups = manifest.included["group"].to_numpy()[own]
    own = own[np.unique(groups, return_index=True)[1]]
    if len(own) == 0:
        return []
    places = (turn + np.arange(EXAMPLES) * max(1, len(own) // EXAMPLES)) % len(own)
    return [int(row) for row in own[np.unique(places)]]


def _tile(manifest: Manifest, row: int) -> Image.Image:
    """Return an image, cut as the data are, whole on a grey square."""
    whole, size = whole_image(manifest, manifest.included.iloc[row]), (TILE, TILE)
    return ImageOps.pad(whole, size, color=EMPTY) if whole else Image.new("RGB", size, EMPTY)


def _draw_pairs(
    pen: ImageDraw.ImageDraw,
    top: int,
    width: int,
    pairs: tuple[ConfusedPair, ...],
    fonts: Fonts,
) -> None:
    pen.text((MARGIN, top), "most confused pairs", INK, fonts.normal)
    half = (width - 2 * MARGIN) // BLOCKS_A_ROW
    for number, pair in enumerate(pairs):
        x = MARGIN + number % BLOCKS_A_ROW * half
        y = top + 28 + number // BLOCKS_A_ROW * 24
        words = f"{pair.count} of {pair.of}:  {pair.true}  taken for  {pair.predicted}"
        pen.text((x, y), fitted(pen, words, half - MARGIN, fonts.small), INK, fonts.small)


def write_misclassified(
    model: str,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] = "errors",
    *,
    split: str = "test",
    shown: int = 12,
    label_parts: str = AUTO,
    runs: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> ErrorAnalysis:
    """Find a model's mistakes; write `errors.csv`, and `errors.png` with the `shown` worst.

    Args:
        model: a package's name or folder, or a trial (`STUDY/NUMBER`).
        data: a folder made by `carray.prepare`, with the model's classes.
        out: the folder to write to.
        split: whose images; looking at `test` is recorded.
        shown: mistakes on the sheet, most confident first.
        label_parts: how class names are read, as `carray.data.label_parts` takes it.
        runs: the runs folder.
        progress: shows how far the images are.

    Raises:
        RecordError: there is no such model.
        DataError: other classes than the model's, or no images in the split.
        ConfigError: `shown` isn't positive.
    """
    if shown < 1:
        raise ConfigError(f"--count {shown} must be at least 1")
    manifest, said = predictions_on(RunsFolder.at(runs), model, data, split, progress)
    parts = read_label_parts(manifest.classes, label_parts)
    found = find_misclassified(manifest, said, parts)
    return _write(found, manifest, Path(out), shown)


def _write(found: ErrorAnalysis, manifest: Manifest, out: Path, shown: int) -> ErrorAnalysis:
    table = out / "errors.csv"
    rows = (
        (
            *(one.image, one.true, one.predicted, f"{one.confidence:.6f}"),
            *(f"{one.true_probability:.6f}", one.true_rank, one.path),
            *([one.wrong_in] if found.levels else []),
        )
        for one in found.mistakes
    )
    write_csv(table, (*COLUMNS, *([WRONG_IN] if found.levels else [])), rows)
    if not found.mistakes:
        return replace(found, table=table)
    sheet = out / "errors.png"
    save_png(draw_sheet(found, manifest, shown), sheet)
    return replace(found, table=table, sheet=sheet)


def misclassified_lines(found: ErrorAnalysis) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    lines = [
        f"{found.model} on {counted(found.images, 'image')} of {found.split}: "
        f"{len(found.mistakes)} wrong, top-1 {interval_text(found.accuracy)}"
    ]
    if found.pairs:
        shown = ((pair.true, pair.predicted, pair.count, pair.of) for pair in found.pairs)
        lines += ["", *table(PAIRS, islice(shown, SHOWN_PAIRS))]
        more = len(found.pairs) - SHOWN_PAIRS
        lines += [f"and {counted(more, 'more pair')}"] if more > 0 else []
    if found.levels:
        lines += ["", *level_lines(found.levels, found.wrong_otherwise), *found.notes]
    if found.models_that_opened_test:
        lines += ["", access_text(found.models_that_opened_test)]
    lines += [f"sheet: {found.sheet}"] if found.sheet else []
    return [*lines, f"table: {found.table}"]
