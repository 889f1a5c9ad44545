"""Images as Python code has them: paths, folders, bytes, PIL images, arrays, or several of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from carray.data.pixels.decode import to_rgb
from carray.errors import DataError
from carray.inference.inputs import find_images

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) RGB
OneImage = str | Path | bytes | Image.Image | Pixels
GivenImages = OneImage | Sequence[OneImage]


def listed_images(given: GivenImages) -> list[Path | bytes | Pixels]:
    """Return every image that is given, a folder's by name, PIL images as arrays.

    A PIL image of a JPEG that isn't decoded yet is its file: a large one is decoded smaller, which
    tells a little from an array of all its pixels.

    Raises:
        DataError: there is none, a path isn't there, or an array is no image.
    """
    several = given if isinstance(given, list | tuple) else [given]
    return [image for one in several for image in _images_of(one)]


def _images_of(given: object) -> Iterator[Path | bytes | Pixels]:
    if isinstance(given, str | Path):
        # a file that can't be read is told by whoever reads it
        folder = Path(given)
        yield from find_images([folder]).paths if folder.is_dir() else (folder,)
    elif isinstance(given, bytes):
        yield given  # of a file; who reads it tells what is wrong with it
    elif isinstance(given, Image.Image):
        yield _jpeg_of(given) or to_rgb(given)
    elif isinstance(given, np.ndarray) and given.ndim == 4:
        for each in given:
            yield _checked(each)
    else:
        yield _checked(given)


def _jpeg_of(image: Image.Image) -> bytes | None:
    """Return the file of a JPEG that PIL has opened and not decoded, nor been asked to reduce."""
    if not isinstance(image, ImageFile) or image.format not in ("JPEG", "MPO"):
        return None
    if image.fp is None or not image.tile or image.decoderconfig or image.tell():
        return None
    image.fp.seek(0)
    return image.fp.read()


def _checked(given: object) -> Pixels:
    """Return an array that is an image.

    Raises:
        DataError: it is of another shape or kind; which is told.
    """
    if isinstance(given, np.ndarray) and given.dtype == np.uint8:
        if given.ndim == 3 and given.shape[2] == 3 and given.size:
            return given
        what = f"an array of shape {given.shape}"
    elif isinstance(given, np.ndarray):
        what = f"an array of {given.dtype}"
    else:
        what = repr(given) if isinstance(given, int | float | None) else type(given).__name__
    raise DataError(f"{what} is no image: give paths, PIL images, or uint8 arrays (H, W, 3) of RGB")
