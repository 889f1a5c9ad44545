"""What any file becomes: a square of RGB."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from carray.config import Fit
from carray.data.pixels.decode import (
    BORDER_RGB,
    UnreadableImage,
    grow,
    make_square,
    open_image,
    read_square,
    to_rgb,
)
from tests.data.pictures import Picture, picture


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves(width: int = 200, height: int = 100) -> Picture:
    """Red on the left, blue on the right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    return pixels


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    gray = Image.fromarray(np.full((40, 60), 200, np.uint8))
    image = Image.fromarray(np.full((40, 60), 200 << 8, np.uint16)) if mode == "I;16" else gray
    image = image if mode == "I;16" else image.convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    square = read_square(encoded(image, kind), 32, "squash")
    assert square.shape == (32, 32, 3)
    assert square.dtype == np.uint8
    wanted = 255 if mode == "1" else 200
    if mode != "1":  # one bit is dithered
        assert abs(int(square.mean()) - wanted) <= 2


def test_a_cmyk_jpeg_keeps_its_colours() -> None:
    image = Image.fromarray(halves()).convert("CMYK")
    square = read_square(encoded(image, "JPEG", quality=95), 64, "squash")
    assert square[32, 8, 0] > 200
    assert square[32, 8, 2] < 60
    assert square[32, 56, 2] > 200


def test_transparency_becomes_white_whatever_colour_it_hides() -> None:
    clear = np.zeros((20, 20, 4), np.uint8)
    clear[..., 0] = 255
    assert (read_square(encoded(Image.fromarray(clear), "PNG"), 16, "squash") == 255).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_rotation_is_honoured(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the viewer turns it by 90 degrees, clockwise
    data = encoded(Image.fromarray(halves()), kind, exif=exif)
    square = read_square(data, 32, "squash")
    assert square[4, 16, 0] > 200, "left becomes top"
    assert square[28, 16, 2] > 200


@pytest.mark.parametrize("kind", [".png", ".tiff"])
@pytest.mark.parametrize("bits", [12, 16])
def test_colours_of_more_than_8_bits_are_scaled_by_as_many_as_they_use(
    kind: str, bits: int
) -> None:
    blue_green_red = np.empty((20, 30, 3), np.uint16)
    blue_green_red[:] = np.array([50, 100, 250]) << (bits - 8)
    data = cv2.imencode(kind, blue_green_red)[1].tobytes()
    assert (read_square(data, 16, "squash") == (250, 100, 50)).all()


def test_deep_colours_keep_their_transparency_and_their_turn() -> None:
    half = np.zeros((20, 20, 4), np.uint16)
    half[..., 2] = 200 << 4
    half[:10, :, 3] = 2**16 - 1
    data = cv2.imencode(".png", half)[1].tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    turned = to_rgb(open_image(data[:33] + chunk + data[33:]))  # behind the header
    assert (turned[:, 10:] == (200, 0, 0)).all()
    assert (turned[:, :10] == 255).all()


def test_a_large_jpeg_decoded_small_looks_as_decoded_whole() -> None:
    whole = picture(3, 1600, 1200)
    data = encoded(Image.fromarray(whole), "JPEG", quality=95)
    for fit in ("squash", "crop", "pad"):
        fast = read_square(data, 100, fit).astype(int)  # type: ignore[arg-type]
        slow = make_square(whole, 100, fit).astype(int)  # type: ignore[arg-type]
        assert np.abs(fast - slow).mean() < 3


def test_fits_keep_what_they_say() -> None:
    wide = halves(400, 100)
    crop = make_square(wide, 50, "crop")
    assert (crop[:, :20, 0] > 250).all()
    assert (crop[:, 30:, 2] > 250).all()
    pad = make_square(wide, 80, "pad")
    assert (pad[:28] == BORDER_RGB).all()
    assert (pad[-28:] == BORDER_RGB).all()
    assert pad[40, 5, 0] > 250
    assert make_square(wide, 80, "squash")[5, 5, 0] > 250


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (31, 17)])
def test_any_size_becomes_a_square(fit: Fit, size: tuple[int, int]) -> None:
    assert make_square(picture(0, *size), 24, fit).shape == (24, 24, 3)


def test_a_box_is_cut_with_its_margin() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[20:60, 50:150] = 255
    data = encoded(Image.fromarray(pixels), "PNG")
    assert (read_square(data, 32, "squash", (50, 20, 150, 60), 0.0) == 255).all()
    assert (read_square(data, 32, "squash", (50, 20, 150, 60), 0.2)[0] == 0).all()


def test_a_box_grows_within_the_image() -> None:
    assert grow((10, 10, 110, 60), 0.1, width=115, height=200) == (0, 5, 115, 65)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "empty"),
        (b"<html>not found</html>", "no image of a known kind"),
        (encoded(Image.fromarray(picture(0)), "PNG")[:200], "truncated"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "it is HEIC, whatever its name"),
        (cv2.imencode(".tif", np.zeros((8, 8, 3), np.float32))[1].tobytes(), "colours that are fl"),
    ],
)
def test_what_is_no_image_says_why(data: bytes, why: str) -> None:
    with pytest.raises(UnreadableImage, match=why):
        read_square(data, 32, "squash")


def test_a_box_outside_the_image_is_refused(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(picture(0)), "PNG")
    with pytest.raises(UnreadableImage, match=r"box \(500, 500, 600, 600\) holds no pixel"):
        read_square(data, 32, "squash", (500, 500, 600, 600))


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (np.array([[0.0, 0.2], [0.8, 0.5]], np.float32), [[0, 51], [204, 128]]),
        (np.array([[0.0, 51.0], [204.0, 127.6]], np.float32), [[0, 51], [204, 128]]),
        (np.array([[0, 816], [3264, 2048]], np.uint16), [[0, 51], [204, 128]]),
        (np.array([[0, 204], [816, 512]], np.uint16), [[0, 51], [204, 128]]),
        (np.array([[0, 51], [204, 128]], np.uint16), [[0, 51], [204, 128]]),
        (np.array([[0, 13107], [52428, 32768]], np.uint16), [[0, 51], [204, 128]]),
    ],
)
def test_numbers_of_other_depths_are_scaled(
    values: npt.NDArray[np.generic], wanted: list[list[int]]
) -> None:
    file = encoded(Image.fromarray(values), "TIFF")
    assert to_rgb(open_image(file))[:, :, 1].tolist() == wanted


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[-0.5, 1.0]], np.float32), r"from -0.5 to 1, and floats must be within 0 and 1"),
        (np.array([[0.0, 4000.0]], np.float32), r"from 0 to 4e\+03, and floats"),
        (np.array([[0.0, np.nan]], np.float32), r"nan"),
        (np.array([[0, 70000]], np.int32), r"from 0 to 70000, and integers must be within"),
    ],
)
def test_numbers_without_a_known_range_are_refused(
    values: npt.NDArray[np.generic], said: str
) -> None:
    with pytest.raises(UnreadableImage, match=said):
        to_rgb(open_image(encoded(Image.fromarray(values), "TIFF")))
