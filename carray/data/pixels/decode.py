"""An image file's bytes to a square of RGB pixels: the one geometry of training and prediction."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

from carray.config import Fit
from carray.typing import AnyFloats

Pixels = npt.NDArray[np.uint8]  # (height, width, 3), RGB
Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels; x2 and y2 are not part of it

BORDER_RGB = (124, 116, 104)  # ImageNet's mean colour: next to zero once normalised
CLEAR_RGB = (255, 255, 255)  # what shows through transparent pixels
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".avif"}
)
BITS = (8, 10, 12, 14, 16)  # of grey images that hold integers; cameras have 10 to 14
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
MAX_PIXELS = 200_000_000  # of one image: 600 MB decoded; more is a mistake or an attack
Image.MAX_IMAGE_PIXELS = None  # Pillow warns from less than half of that

_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}
_REDUCED[8] = cv2.IMREAD_REDUCED_COLOR_8


class UnreadableImage(ValueError):
    """The bytes are no image that can be decoded; the message says why."""


def read_square(
    data: bytes, side: int, fit: Fit, box: Box | None = None, margin: float = 0.0
) -> Pixels:
    """Return an image file's bytes as (side, side, 3) uint8 RGB.

    EXIF rotation is honoured; grayscale, CMYK, palette and transparency become RGB. `box`, grown
    by `margin` times its own sides, is cut out before the image is made square.

    Raises:
        UnreadableImage: the bytes can't be decoded.
    """
    wanted = None if box is not None else (side, fit)
    image = _decode_fast(data, wanted)
    if image is None:
        image = to_rgb(open_image(data))
    if box is not None:
        image = cut(image, box, margin)
    return make_square(image, side, fit)


def read_whole(file: Path, box: Box | None, margin: float) -> Pixels:
    """Return an image file as (H, W, 3) RGB, cut to its box grown by `margin` where it has one.

    Raises:
        UnreadableImage: the file can't be decoded.
        OSError: it can't be read.
    """
    image = to_rgb(open_image(file.read_bytes()))
    return image if box is None else cut(image, box, margin)


def make_square(image: Pixels, side: int, fit: Fit) -> Pixels:
    """Return (H, W, 3) as (side, side, 3): `squash` ignores the aspect, `crop` keeps the middle,
    `pad` adds borders; antialiased."""
    height, width = image.shape[:2]
    if fit == "squash":
        return _resize(image, side, side)
    if fit == "crop":
        edge = min(height, width)
        top, left = (height - edge) // 2, (width - edge) // 2
        return _resize(image[top : top + edge, left : left + edge], side, side)
    scale = side / max(height, width)
    inner_w, inner_h = max(1, round(width * scale)), max(1, round(height * scale))
    square = np.full((side, side, 3), BORDER_RGB, np.uint8)
    top, left = (side - inner_h) // 2, (side - inner_w) // 2
    square[top : top + inner_h, left : left + inner_w] = _resize(image, inner_w, inner_h)
    return square


def grow(box: Box, margin: float, *, width: int, height: int) -> Box:
    """Return `box` grown by `margin` times its sides on each side, within the image."""
    x1, y1, x2, y2 = box
    dx, dy = round((x2 - x1) * margin), round((y2 - y1) * margin)
    return max(0, x1 - dx), max(0, y1 - dy), min(width, x2 + dx), min(height, y2 + dy)


def cut(image: Pixels, box: Box, margin: float) -> Pixels:
    """Return the part of (H, W, 3) in `box` and its margin; raises UnreadableImage where that is
    empty."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = grow(box, margin, width=width, height=height)
    part = image[y1:y2, x1:x2]
    if part.size == 0:
        raise UnreadableImage(f"the box {box} holds no pixel of {width}x{height}")
    return part


def open_image(data: bytes) -> Image.Image:
    """Open (lazily) an image's bytes; raises UnreadableImage where they are none."""
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        image = Image.open(io.BytesIO(data))
    except Exception as error:
        raise UnreadableImage(_kind_that_is_not_read(data) or _reason(error)) from None
    if image.width * image.height > MAX_PIXELS:
        raise UnreadableImage(f"{image.width}x{image.height} is over {MAX_PIXELS:,} pixels")
    return image


def to_rgb(image: Image.Image) -> Pixels:
    """Decode a PIL image wholly, turn it as its EXIF says, and return (H, W, 3) RGB.

    Raises:
        UnreadableImage: the file is truncated or broken.
    """
    try:
        image = _deep_colours(image) or image
        image.load()
        image = ImageOps.exif_transpose(image)
        return np.asarray(_flat(image), np.uint8)
    except Exception as error:
        raise UnreadableImage(_reason(error)) from None


def _deep_colours(image: Image.Image) -> Image.Image | None:
    """Return colours of 16 bits scaled to 8; None for others.

    PIL keeps their upper byte, which leaves the 12 bits of a camera nearly black.
    """
    if not isinstance(image, ImageFile) or image.mode not in ("RGB", "RGBA"):
        return None
    if image.fp is None or not image.tile or ";16" not in str(image.tile[0]):
        return None
    image.fp.seek(0)
    deep = cv2.imdecode(np.frombuffer(image.fp.read(), np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None:
        return None
    order = [2, 1, 0, 3][: deep.shape[2]]
    values = deep[..., order].astype(np.float64)
    clear = values[..., 3:] / 257  # opacity has all of its bits
    pixels = np.concatenate([_bytes_of_integers(values[..., :3]), clear.astype(np.uint8)], -1)
    scaled = Image.fromarray(pixels)
    scaled.getexif().update(image.getexif())  # how it is turned
    return scaled


def _flat(image: Image.Image) -> Image.Image:
    """Return any PIL mode as RGB; other numbers become 8 bits, transparency becomes white."""
    if image.mode == "RGB":
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        grey = _bytes_of_floats(values) if image.mode == "F" else _bytes_of_integers(values)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        clear = Image.new("RGBA", image.size, (*CLEAR_RGB, 255))
        return Image.alpha_composite(clear, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _bytes_of_integers(values: AnyFloats) -> npt.NDArray[np.uint8]:
    """Scale by the fewest of `BITS` that hold the largest value: 12 bits come in files of 16."""
    low, high = values.min(initial=0), values.max(initial=0)
    bits = next((bits for bits in BITS if high < 2**bits), 0)
    if low < 0 or not bits:
        raise UnreadableImage(
            f"its values go from {low:.0f} to {high:.0f}, and integers must be within 0 and 65535; "
            "save it with 8 or 16 bits"
        )
    grey: npt.NDArray[np.uint8] = (values / 2 ** (bits - 8)).astype(np.uint8)
    return grey


def _bytes_of_floats(values: AnyFloats) -> npt.NDArray[np.uint8]:
    """Take values within 0 and 1 for shares of white, those within 0 and 255 as they are."""
    low, high = values.min(initial=0), values.max(initial=0)  # NaN where there is one
    if not (low >= 0 and high <= 255):
        raise UnreadableImage(
            f"its values go from {low:.3g} to {high:.3g}, and floats must be within 0 and 1 or "
            "0 and 255; save it with 8 or 16 bits"
        )
    grey: npt.NDArray[np.uint8] = np.rint(values * 255 if high <= 1 else values).astype(np.uint8)
    return grey


def _kind_that_is_not_read(data: bytes) -> str:
    """Say what an image is, whatever its name, that can't be opened; "" where that isn't known."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS:
        return "it is HEIC, whatever its name, which isn't read; save it as JPEG or PNG"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "it is a TIFF of a kind that isn't read, as colours that are floats; save it as PNG"
    return ""


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "cannot identify image file" in text:
        return "the file is no image of a known kind"
    return text


def _decode_fast(data: bytes, wanted: tuple[int, Fit] | None) -> Pixels | None:
    """Return an RGB or grey JPEG through OpenCV, turned as its EXIF says; None for what needs PIL.

    `wanted` (side, fit) allows decoding at 1/2, 1/4 or 1/8 where that is large enough.
    """
    image = open_image(data)
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    flags = cv2.IMREAD_COLOR
    if wanted is not None:
        flags = _REDUCED.get(_reduction(image.width, image.height, *wanted), flags)
    decoded: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return None if decoded is None else cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)


def _reduction(width: int, height: int, side: int, fit: Fit) -> int:
    """Return the largest of 8, 4, 2, 1 that leaves enough pixels for `side`."""
    edge = max(width, height) if fit == "pad" else min(width, height)
    return next((factor for factor in (8, 4, 2) if edge // factor >= side), 1)


def _resize(image: Pixels, width: int, height: int) -> Pixels:
    if image.shape[:2] == (height, width):
        return image
    smaller = width * height < image.shape[0] * image.shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=how)  # type: ignore[no-any-return]
