"""Render the toy cars as an image folder, with flaws planted and listed in `flaws.csv`."""

from __future__ import annotations

import os
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from carray.data.parallel import map_images
from carray.data.pixels.decode import Pixels
from carray.data.synthetic import scene
from carray.data.synthetic.car_models import MODELS, Model
from carray.data.synthetic.draw import Canvas, paint_car
from carray.errors import DataError
from carray.files import write_csv, written_aside
from carray.progress import silent
from carray.typing import Progress

FLAWS_FILE = "flaws.csv"
WIDTHS, HEIGHTS = (120, 160), (96, 128)  # pixels, both ends included
SUPERSAMPLING = 2
PNG_SHARE = 0.15
WRONG_SHARE, NEAR_SHARE, CORRUPT_SHARE = 0.012, 0.014, 0.007  # of all images; at least one each
JPEG_QUALITY = (62, 95)
MIN_IMAGES_PER_CLASS = 4


@dataclass(frozen=True)
class Flaw:
    """One planted flaw, a row of `flaws.csv`."""

    image: str
    """Path below the folder."""
    flaw: str
    """`wrong_label`, `near_duplicate`, `conflict` or `corrupt`."""
    truth: str
    """The true class; the image it is a copy of; how the file is broken."""


@dataclass(frozen=True)
class _Picture:
    """One file to write."""

    path: str
    model: Model
    number: int
    flaw: Flaw | None = None
    copy_of: str = ""


def render_toycars(
    folder: Path | str,
    *,
    seed: int = 0,
    images_per_class: int = 60,
    progress: Progress = silent,
) -> Path:
    """Draw 12 models of 4 brands into `folder/CLASS/*.jpg|png`, 96 to 160 px, without splits.

    Three pairs of models share a body and differ only in a small badge. About 1 % of the images
    bear a wrong label, as many again are near-duplicates, a few are corrupt, one has one content
    under two labels: all are listed in `folder/flaws.csv`. The same seed draws the same images.

    Raises:
        DataError: `folder` is there already and isn't empty, or too few images are asked for.
    """
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} is there already: remove it, or name another folder")
    if images_per_class < MIN_IMAGES_PER_CLASS:
        raise DataError(
            f"too few images per class, {images_per_class}: at least {MIN_IMAGES_PER_CLASS}"
        )
    pictures = _plan(images_per_class, np.random.default_rng([seed, 1]))
    with written_aside(folder) as aside:
        for model in MODELS:
            (aside / model.label).mkdir(parents=True)
        for _ in map_images(
            lambda picture: _write(aside, picture, seed), pictures, "drawing toy cars", progress
        ):
            pass
        flaws = (astuple(one.flaw) for one in pictures if one.flaw)
        write_csv(aside / FLAWS_FILE, [field.name for field in fields(Flaw)], flaws)
    return folder


def draw_car(model: Model, rng: np.random.Generator) -> Pixels:
    """Return one picture of a model, (height, width, 3) RGB."""
    width = int(rng.integers(WIDTHS[0], WIDTHS[1] + 1))
    height = int(rng.integers(HEIGHTS[0], HEIGHTS[1] + 1))
    wide, high = width * SUPERSAMPLING, height * SUPERSAMPLING
    place, road = scene.place_car(wide, high, rng)
    image = np.zeros((high, wide, 3), np.uint8)
    horizon = int(np.clip(road - rng.uniform(0.05, 0.3) * high, 0.3 * high, 0.85 * high))
    scene.paint_background(image, horizon, rng)
    canvas = Canvas(image, place)
    scene.paint_shadow(canvas)
    paint_car(canvas, model, rng)
    scene.paint_foreground(canvas, rng)
    small = cv2.resize(canvas.image, (width, height), interpolation=cv2.INTER_AREA)
    return scene.spoil(small, rng)


def _plan(images_per_class: int, rng: np.random.Generator) -> list[_Picture]:
    """Return the files to write; flaws are planted on some of them, copies are added."""
    pictures = []
    for model in MODELS:
        for number in range(images_per_class):
            ending = "png" if rng.random() < PNG_SHARE else "jpg"
            pictures.append(_Picture(f"{model.label}/{number:04d}.{ending}", model, number))
    total = len(pictures)
    wrong, near, corrupt = (
        max(1, round(share * total)) for share in (WRONG_SHARE, NEAR_SHARE, CORRUPT_SHARE)
    )
    drawn = iter(rng.permutation(total).tolist())
    for _ in range(wrong):
        _mislabel(pictures, next(drawn), rng)
    for kind in range(corrupt):
        one = pictures[index := next(drawn)]
        flaw = Flaw(one.path, "corrupt", ("truncated", "empty", "text")[kind % 3])
        pictures[index] = _Picture(one.path, one.model, one.number, flaw)
    for number in range(near):
        original = pictures[next(drawn)]
        _add_copy(
            pictures, original, original.model, f"{images_per_class + number:04d}", "near_duplicate"
        )
    original = pictures[next(drawn)]
    other = MODELS[(MODELS.index(original.model) + 5) % len(MODELS)]
    _add_copy(pictures, original, other, f"{images_per_class + near:04d}", "conflict")
    return pictures


def _mislabel(pictures: list[_Picture], index: int, rng: np.random.Generator) -> None:
    """Draw another model under this picture's label."""
    one = pictures[index]
    others = [model for model in MODELS if model != one.model]
    truth = others[rng.integers(len(others))]
    flaw = Flaw(one.path, "wrong_label", truth.label)
    number = one.number + 10_000  # another seed than the truth's own pictures
    pictures[index] = _Picture(one.path, truth, number, flaw)


def _add_copy(
    pictures: list[_Picture], original: _Picture, model: Model, name: str, flaw: str
) -> None:
    ending = "jpg" if flaw == "near_duplicate" else original.path.rpartition(".")[2]
    path = f"{model.label}/{name}.{ending}"
    pictures.append(
        _Picture(
            path, original.model, original.number, Flaw(path, flaw, original.path), original.path
        )
    )


def _write(folder: Path, picture: _Picture, seed: int) -> None:
    rng = np.random.default_rng([seed, 2, MODELS.index(picture.model), picture.number])
    image = draw_car(picture.model, rng)
    quality = int(rng.integers(*JPEG_QUALITY))
    flaw = picture.flaw.flaw if picture.flaw else ""
    if flaw == "near_duplicate":
        image = np.clip(image.astype(np.int16)[1:, 1:] + 6, 0, 255).astype(np.uint8)
        quality = 70
    data = _encoded(image, Path(picture.path).suffix, quality)
    if picture.flaw and flaw == "corrupt":
        data = _broken(data, picture.flaw.truth)
    (folder / picture.path).write_bytes(data)


def _encoded(image: Pixels, suffix: str, quality: int) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return bytes(data.tobytes())


def _broken(data: bytes, how: str) -> bytes:
    if how == "truncated":
        return data[: len(data) // 2]
    return (
        b"" if how == "empty" else b"<html><body>404 Not Found</body></html>" + os.linesep.encode()
    )
