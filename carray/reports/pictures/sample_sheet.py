"""The sample sheet of a data set: a few images of every class, and how many there are by split."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageOps

from carray.data.manifest import SPLITS, Manifest
from carray.data.pixels.decode import UnreadableImage, read_whole
from carray.drawing import EMPTY, INK, MUTED, PAPER, Fonts, fitted, save_png
from carray.errors import DataError
from carray.progress import silent
from carray.typing import Progress

SPLIT_COLOURS = {"train": "#0072B2", "val": "#E69F00", "blend": "#009E73", "test": "#CC79A7"}
MARGIN, GAP, HEAD, NAME, BAR = 18, 4, 78, 21, 7  # pixels
ASPECT = 1.4  # cars are wider than high
SHAPES = ((12, 1, 7, 96), (48, 2, 5, 72), (10_000, 3, 4, 56))
"""(classes at most, columns of classes, images a class, height of an image in pixels)."""


def sample_sheet(
    manifest: Manifest | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Path:
    """Draw a few images of every class and a bar of its counts by split, as one PNG.

    Images are whole, or cut to their boxes where the data set is; a few of each class, drawn with
    `seed`. The most frequent class has the longest bar.

    Raises:
        DataError: `out` is no .png file, or the data folder can't be read.
    """
    file = Path(out).expanduser()
    if file.suffix.lower() != ".png":
        raise DataError(f"--sheet {file} must be a .png file")
    known = manifest if isinstance(manifest, Manifest) else Manifest.load(Path(manifest))
    _, columns, images, tile = next(shape for shape in SHAPES if len(known.classes) <= shape[0])
    sheet = _Sheet(known, columns, images, tile)
    numbers = np.random.default_rng(seed)
    with progress("sample sheet", len(known.classes)) as advance:
        for place, name in enumerate(known.classes):
            sheet.draw(place, name, numbers)
            advance(1)
    save_png(sheet.image, file)
    return file


def whole_image(manifest: Manifest, row: pd.Series) -> Image.Image | None:
    """Return an image, cut as the data are; None where the file is gone."""
    try:
        return Image.fromarray(read_whole(Path(row["path"]), manifest.box_of(row), manifest.margin))
    except (OSError, UnreadableImage):
        return None


class _Sheet:
    """The picture while it is drawn."""

    def __init__(self, manifest: Manifest, columns: int, images: int, tile: int) -> None:
        self._manifest, self._images, self._tile = manifest, images, tile
        self._wide = round(ASPECT * tile)
        self._table = manifest.included
        self._counts = manifest.class_counts()
        self._most = int(self._counts.sum(axis=1).max())
        self._rows = -(-len(manifest.classes) // columns)
        self._width = images * (self._wide + GAP) + 2 * MARGIN
        height = HEAD + self._rows * self._step + MARGIN
        self.image = Image.new("RGB", (columns * self._width, height), PAPER)
        self._pen = ImageDraw.Draw(self.image)
        self._fonts = Fonts(" ".join(manifest.classes), (22, 15, 13))
        self._head()

    @property
    def _step(self) -> int:
        return NAME + BAR + GAP + self._tile + 2 * GAP + 6

    def _head(self) -> None:
        pen, table = self._pen, self._table
        folder = self._manifest.folder.name
        title = f"{folder}: {len(table):,} images of {len(self._manifest.classes)} classes"
        pen.text((MARGIN, 12), title, INK, self._fonts.large)
        x = float(MARGIN)
        for split in SPLITS:
            count = int((table["split"] == split).sum())
            if count:
                words = f"{split} {count:,}"
                pen.rectangle((x, 48, x + 13, 61), fill=SPLIT_COLOURS[split])
                pen.text((x + 19, 46), words, MUTED, self._fonts.normal)
                x += 42 + pen.textlength(words, self._fonts.normal)

    def draw(self, place: int, name: str, numbers: np.random.Generator) -> None:
        """Draw one class: down the columns, in the order of the classes."""
        column, row = divmod(place, self._rows)
        x, y = column * self._width + MARGIN, HEAD + row * self._step
        mine = self._table[self._table["class_index"] == place]
        self._title(x, y, name, len(mine))
        self._bar(x, y + NAME, self._counts.iloc[place])
        chosen = numbers.permutation(len(mine))[: self._images]
        for number, index in enumerate(sorted(chosen)):
            square = self._picture(mine.iloc[int(index)])
            corner = (x + number * (self._wide + GAP), y + NAME + BAR + GAP)
            self.image.paste(square, corner)

    def _title(self, x: int, y: int, name: str, count: int) -> None:
        pen, fonts = self._pen, self._fonts
        count_text = f"{count:,}"
        right = x + self._images * (self._wide + GAP) - GAP
        wide = pen.textlength(count_text, fonts.small)
        pen.text((right - wide, y + 2), count_text, MUTED, fonts.small)
        pen.text((x, y), fitted(pen, name, right - wide - 10 - x, fonts.normal), INK, fonts.normal)

    def _bar(self, x: int, y: int, counts: pd.Series) -> None:
        """Draw the counts by split end to end; the largest class's bar is as wide as its images."""
        full = self._images * (self._wide + GAP) - GAP
        self._pen.rectangle((x, y, x + full, y + BAR - 2), fill=EMPTY)
        at = float(x)
        for split in SPLITS:
            wide = full * int(counts[split]) / self._most
            if wide:
                self._pen.rectangle((at, y, at + wide, y + BAR - 2), fill=SPLIT_COLOURS[split])
            at += wide

    def _picture(self, row: pd.Series) -> Image.Image:
        """Return one image, cut to the tile's aspect ratio; a grey one where the file is gone."""
        size, whole = (self._wide, self._tile), whole_image(self._manifest, row)
        return ImageOps.fit(whole, size) if whole else Image.new("RGB", size, EMPTY)
