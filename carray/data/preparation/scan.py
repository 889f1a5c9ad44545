"""Look at every image once: does it decode, how large is it, what does it hold."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from carray.data.parallel import map_images
from carray.data.pixels.decode import Box, Pixels, UnreadableImage, cut, open_image, to_rgb
from carray.data.preparation.scan_cache import THUMB_SIDE, ImageScan, ScanCache, key_of, open_cache
from carray.progress import silent
from carray.typing import Progress

HASHED_SIDE = 64  # what the perceptual hash sees; it shrinks that to 32 itself
DRAFT_SIDE = 160  # a JPEG may be decoded at 1/2, 1/4 or 1/8 down to this; all its bytes are read
_EXIF_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def scan_images(
    paths: Sequence[Path],
    boxes: Sequence[Box | None],
    margin: float,
    progress: Progress = silent,
    log_file: Path | None = None,
) -> list[ImageScan]:
    """Decode and hash every image (cut to its box, if it has one), in threads; never raises for
    an image: a file that can't be read has a `problem`.

    Images that `log_file` knows from a scan that was interrupted, their files unchanged, are taken
    from there; the others are added to it. Whoever needs no second scan removes it.

    Raises:
        DataError: the log can't be written.
    """

    def look(number: int) -> ImageScan:
        asked = paths[number], boxes[number], margin
        key = key_of(*asked)
        seen = scan_image(*asked)
        log.add(key, seen)
        return seen

    with open_cache(log_file) if log_file else nullcontext(ScanCache()) as log:
        found = [log.find(path, box, margin) for path, box in zip(paths, boxes, strict=True)]
        missing = [number for number, seen in enumerate(found) if seen is None]
        looked = iter(list(map_images(look, missing, "reading images", progress)))
        return [seen or next(looked) for seen in found]


def scan_image(path: Path, box: Box | None, margin: float) -> ImageScan:
    """Decode and hash one image."""
    try:
        if not S_ISREG(path.stat().st_mode):
            return ImageScan(problem="no file, but a pipe or a device")
        data = path.read_bytes()
    except OSError as error:
        return ImageScan(problem=error.strerror or str(error))
    digest = sha256(data).hexdigest()
    try:
        image = open_image(data)
        width, height = _size(image)
        if box is None:
            image.draft(None, (DRAFT_SIDE, DRAFT_SIDE))
        pixels = to_rgb(image)
        if box is not None:
            pixels = cut(pixels, box, margin)
    except UnreadableImage as error:
        return ImageScan(problem=str(error), content_hash=digest)
    small = _shrunk(pixels, HASHED_SIDE)
    return ImageScan("", digest, perceptual_hash(small), width, height, _shrunk(small, THUMB_SIDE))


def perceptual_hash(pixels: Pixels) -> str:
    """Return the 64-bit pHash of (H, W, 3) RGB as 16 hex digits."""
    import imagehash

    gray: npt.NDArray[np.uint8] = cv2.cvtColor(_shrunk(pixels, HASHED_SIDE), cv2.COLOR_RGB2GRAY)
    return str(imagehash.phash(Image.fromarray(gray)))


def _size(image: Image.Image) -> tuple[int, int]:
    """Return width and height as a viewer shows them."""
    try:
        turned = image.getexif().get(_EXIF_ORIENTATION, 1) in _TURNED
    except Exception:  # broken EXIF: viewers ignore it
        turned = False
    return (image.height, image.width) if turned else (image.width, image.height)


def _shrunk(pixels: Pixels, side: int) -> Pixels:
    return cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)  # type: ignore[no-any-return]
