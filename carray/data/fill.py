"""Fill a pixel store: read, check and decode every included image, on all cores."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt

from carray import config
from carray.data.decode import Box, UnreadableImage, read_square
from carray.data.manifest import BOX_COLUMNS, Manifest
from carray.data.parallel import Progress, map_images
from carray.data.parallel import num_workers as num_workers  # some import it from here
from carray.errors import DataError


def fill_store(
    pixels: npt.NDArray[np.uint8],
    sums: npt.NDArray[np.uint32],
    manifest: Manifest,
    side: int,
    fit: config.Fit,
    rows: Sequence[int],
    progress: Progress,
) -> None:
    """Decode the included images `rows` into `pixels`, (N, side, side, 3), and their CRC-32 into
    `sums`, (N,).

    Raises:
        DataError: an image is gone or has changed since it was prepared.
    """
    table = manifest.included
    paths, hashes = table["path"].tolist(), table["content_hash"].tolist()
    boxes = table[list(BOX_COLUMNS)].to_numpy(np.int64).tolist()

    def fill(row: int) -> None:
        cropped = manifest.crop == "box" and boxes[row][0] >= 0
        box: Box | None = tuple(boxes[row]) if cropped else None
        data = _unchanged(Path(paths[row]), hashes[row])
        try:
            pixels[row] = read_square(data, side, fit, box, manifest.margin)
        except UnreadableImage as error:
            raise DataError(f"{paths[row]} can't be decoded: {error}") from None
        sums[row] = zlib.crc32(pixels[row])

    for _ in map_images(fill, rows, f"pixel store {side} px, {fit}", progress):
        pass


def _unchanged(path: Path, content_hash: str) -> bytes:
    again = "run `carray data prepare` again"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} can't be read ({error.strerror}): bring it back, or {again}"
        ) from None
    if sha256(data).hexdigest() != content_hash:
        raise DataError(f"{path} has changed since the data were prepared: {again}")
    return data
