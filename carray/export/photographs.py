"""The photographs of a model's data set, decoded as whoever runs an export decodes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from carray.data.manifest import BOX_COLUMNS, Manifest
from carray.data.pixels.decode import Box, UnreadableImage, open_image, read_whole, to_rgb
from carray.errors import DataError
from carray.typing import Labels, Rows


@dataclass(frozen=True)
class Photographs:
    """Some rows of a data set."""

    manifest: Manifest
    split: str
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> Labels:
        """Class index of each."""
        return self.manifest.labels[self.rows]

    @property
    def paths(self) -> list[Path]:
        """Their files."""
        return [Path(path) for path in self.manifest.included["path"].to_numpy()[self.rows]]

    @property
    def boxes(self) -> list[Box | None]:
        """The boxes that they are cut to, where the data set is."""
        if self.manifest.crop != "box":
            return [None] * len(self)
        rows = self.manifest.included[list(BOX_COLUMNS)].to_numpy(np.int64)[self.rows].tolist()
        return [tuple(row) if row[0] >= 0 else None for row in rows]

    def read(self, side: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield each as (H, W, 3) RGB; JPEGs at 1/2, 1/4 or 1/8 where that is `side` pixels wide.

        Raises:
            DataError: one is gone or can't be decoded.
        """
        for path, box in zip(self.paths, self.boxes, strict=True):
            try:
                if box is not None:
                    yield read_whole(path, box, self.manifest.margin)
                    continue
                image = open_image(path.read_bytes())
                image.draft("RGB", (side, side))
                yield to_rgb(image)
            except (OSError, UnreadableImage) as error:
                raise DataError(f"{path} can't be read ({error}): bring it back") from None


def held_photographs(manifest: Manifest) -> Photographs:
    """Return the photographs of `blend`, of `val` where there is no blend split.

    Raises:
        DataError: there are none of either.
    """
    split = manifest.judging_split
    if len(manifest.rows(split)) == 0:
        raise DataError(
            f"{manifest.folder} has neither blend nor val images, which an export is judged on: "
            "prepare it with one of them"
        )
    return Photographs(manifest, split, manifest.rows(split))


def some_training(manifest: Manifest, count: int) -> Photographs:
    """Return at most `count` photographs of `train`, drawn once."""
    rows = np.random.default_rng(0).permutation(manifest.rows("train"))[:count]
    return Photographs(manifest, "train", rows)
