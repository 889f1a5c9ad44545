"""Augmentation, drawn: a row of ranges and a seed become `AugmentParams`.

Drawing is apart from applying (`augmentation_backends`): every geometric change of an image
is one affine map, every change of colour one 3 x 4 matrix, every change of tone one table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from math import log, radians
from typing import Any

import numpy as np
import numpy.typing as npt

from carray.data.pixels.augment_ranges import AugmentRanges
from carray.data.pixels.blur import KINDS, sample_kinds, sample_sigmas
from carray.typing import AnyFloats

Rng = np.random.Generator

CROP_TRIES = 10  # then the whole image, as RandomResizedCrop does
PIXEL_TOLERANCE = 1e-3  # what float32 leaves of a whole pixel
MID_GREY = 115.0  # what contrast turns around, brightened: the mean grey of photographs
LUMA = np.array([0.299, 0.587, 0.114])
GEOMETRIC, TONE = ("rotate", "shear_x", "shear_y", "translate"), ("posterize", "solarize", "gamma")
_RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)


@dataclass(frozen=True)
class AugmentParams:
    """What happens to each of B images; arrays, one row an image."""

    affine: npt.NDArray[np.float32]
    """(B, 2, 3): output pixel (x, y, 1) -> source pixel (x, y)."""
    colour: npt.NDArray[np.float32]
    """(B, 3, 4): RGB and 1 -> RGB, values in [0, 255]."""
    tone: npt.NDArray[np.uint8]
    """(B, 256): table over every channel."""
    has_tone: npt.NDArray[np.bool_]
    erase: npt.NDArray[np.int64]
    """(B, 4): x1, y1, x2, y2 in output pixels, the ends excluded; empty where x1 == x2."""
    fill: npt.NDArray[np.uint8]
    """(B, 3): colour of the erased box."""
    blur: npt.NDArray[np.float64]
    """(B,): sigma of a blur in output pixels; 0 is none."""
    has_colour: bool = True
    blur_kind: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """(B,): number into `blur.KINDS`; like the next, empty where all are Gaussian."""
    blur_angle: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(B,): direction of a motion, in radians."""
    tilt: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    """(B, 2): how much nearer the crop's right and lower sides are; empty where none is tilted."""
    more_boxes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0, 4), np.int64))
    """(B, n, 4): further erased boxes of the same colour; empty where each has one at most."""

    def __len__(self) -> int:
        return len(self.affine)


@dataclass(frozen=True)
class View:
    """What of an image is seen, as shares of its side, and how.

    Past the image's edge its reflection is shown.
    """

    x1: float = 0.0
    y1: float = 0.0
    x2: float = 1.0
    y2: float = 1.0
    flip: bool = False
    rotate: float = 0.0
    """Degrees that the box is turned by, about its middle."""
    tilt: float = 0.0
    """How much nearer its right side is, as in `AugmentParams`."""
    brightness: float = 1.0
    """Factor of all values, as the next is of how far they are from a mid grey."""
    contrast: float = 1.0
    blur: float = 0.0
    """Sigma of a Gaussian blur in output pixels; 0 is none."""


WHOLE = View()


def concat(parts: Sequence[AugmentParams]) -> AugmentParams:
    """Return the parameters of several batches as those of one."""
    return AugmentParams(
        affine=np.concatenate([part.affine for part in parts]),
        colour=np.concatenate([part.colour for part in parts]),
        tone=np.concatenate([part.tone for part in parts]),
        has_tone=np.concatenate([part.has_tone for part in parts]),
        erase=np.concatenate([part.erase for part in parts]),
        fill=np.concatenate([part.fill for part in parts]),
        blur=np.concatenate([part.blur for part in parts]),
        has_colour=any(part.has_colour for part in parts),
        **_concat_optional(parts),
    )


OPTIONAL = ("blur_kind", "blur_angle", "tilt", "more_boxes")


def _concat_optional(parts: Sequence[AugmentParams]) -> dict[str, Any]:
    """Return what only some parts may have; a part without has zeros."""
    found: dict[str, Any] = {}
    for name in OPTIONAL:
        arrays = [getattr(part, name) for part in parts]
        shape = max((array.shape[1:] for array in arrays), default=())
        empty = [
            np.zeros((len(part), *shape), a.dtype) for part, a in zip(parts, arrays, strict=True)
        ]
        if any(len(array) for array in arrays):
            chosen = (a if len(a) else e for a, e in zip(arrays, empty, strict=True))
            found[name] = np.concatenate(list(chosen))
    return found


def sample_params(
    row: AugmentRanges,
    flip: bool,
    count: int,
    side_in: int,
    side_out: int,
    rng: Rng,
    blur_share: float = 0.0,
    kept: AnyFloats | None = None,
) -> AugmentParams:
    """Draw what happens to `count` images of `side_in` pixels that become `side_out` pixels.

    `kept` are boxes that crops keep, as in `sample_crops`.
    """
    boxes = sample_crops(row, count, rng, kept)
    flips = rng.random(count) < 0.5 if flip else np.zeros(count, bool)
    tone, has_tone = _sample_tone(row, count, rng)
    maps, shifts = _sample_geometric(row, count, rng)
    boxes = _on_pixels(boxes + np.tile(shifts * (boxes[:, 2:] - boxes[:, :2]), 2), side_in)
    params = AugmentParams(
        affine=affine_of(boxes, flips, maps, side_in, side_out),
        colour=_sample_colour(row, count, rng),
        tone=tone,
        has_tone=has_tone,
        erase=_sample_erase(row, count, side_out, rng),
        fill=rng.integers(0, 256, (count, 3), np.uint8),
        blur=sample_sigmas(blur_share, count, rng),
        has_colour=row.colour > 0,
    )
    return replace(params, **_sample_optional(row, params.erase, side_out, blur_share, rng))


def _sample_optional(
    row: AugmentRanges, erase: npt.NDArray[np.int64], side: int, blur_share: float, rng: Rng
) -> dict[str, Any]:
    """Draw what is off by default, after all else, so that nothing else moves where it is."""
    count, found = len(erase), dict[str, Any]()
    if blur_share and row.blur_kind != KINDS[0]:
        found["blur_kind"], found["blur_angle"] = sample_kinds(row.blur_kind, count, rng)
    if row.perspective_share:
        tilted = rng.random((count, 1)) < row.perspective_share
        found["tilt"] = np.where(tilted, rng.uniform(-row.tilt, row.tilt, (count, 2)), 0.0)
    if row.erase_boxes > 1 and row.erase_share:
        always = replace(row, erase_share=1.0)
        boxes = [_sample_erase(always, count, side, rng) for _ in range(row.erase_boxes - 1)]
        found["more_boxes"] = np.stack(boxes, 1) * (erase[:, 2] > erase[:, 0])[:, None, None]
    return found


def identity_params(count: int, side_in: int, side_out: int, view: View = WHOLE) -> AugmentParams:
    """Return the parameters of evaluation: one view, the whole image unless told, resized."""
    boxes = np.tile([view.x1, view.y1, view.x2, view.y2], (count, 1))
    none = np.zeros(count, bool)
    flips = np.full(count, view.flip)
    maps = _rotations(np.full(count, radians(view.rotate)))
    factors = np.full((2, count, 1, 1), [[[[view.brightness]]], [[[view.contrast]]]])
    colour = np.concatenate(_brightened(*factors), 2)
    return AugmentParams(
        affine=affine_of(boxes, flips, maps, side_in, side_out),
        colour=colour.astype(np.float32),
        tone=np.tile(np.arange(256, dtype=np.uint8), (count, 1)),
        has_tone=none,
        erase=np.zeros((count, 4), np.int64),
        fill=np.zeros((count, 3), np.uint8),
        blur=np.full(count, view.blur),
        has_colour=(view.brightness, view.contrast) != (1.0, 1.0),
        tilt=np.tile([view.tilt, 0.0], (count if view.tilt else 0, 1)),
    )


def sample_crops(
    row: AugmentRanges, count: int, rng: Rng, kept: AnyFloats | None = None
) -> AnyFloats:
    """Draw crop boxes (count, 4): x1, y1, x2, y2 as shares of the side.

    Each holds its box of `kept` (count, 4), or lies within it where it is smaller; NaN: no box.
    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015: area and log aspect uniform; the
    whole image where ten tries don't fit.
    """
    shape = (count, CROP_TRIES)
    area = rng.uniform(row.crop_area_min, 1.0, shape)
    aspect = np.exp(rng.uniform(-log(row.crop_aspect_max), log(row.crop_aspect_max), shape))
    width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
    fits = (width <= 1) & (height <= 1)
    first = np.arange(count), fits.argmax(1)
    ok = fits.any(1)
    width, height = np.where(ok, width[first], 1.0), np.where(ok, height[first], 1.0)
    x1 = _crop_starts(width, rng, None if kept is None else kept[:, [0, 2]])
    y1 = _crop_starts(height, rng, None if kept is None else kept[:, [1, 3]])
    return np.stack([x1, y1, x1 + width, y1 + height], 1)


def _crop_starts(lengths: AnyFloats, rng: Rng, kept: AnyFloats | None) -> AnyFloats:
    """Draw where crops (count,) start in one direction, by what they keep of it, (count, 2)."""
    low, high = np.zeros(len(lengths)), 1 - lengths
    if kept is not None:
        first, last = kept[:, 0], kept[:, 1] - lengths
        known = np.isfinite(first)
        low = np.where(known, np.clip(np.minimum(first, last), 0, high), low)
        high = np.where(known, np.clip(np.maximum(first, last), 0, high), high)
    starts: AnyFloats = low + rng.random(len(lengths)) * (high - low)
    return starts


def _on_pixels(boxes: AnyFloats, side: int) -> AnyFloats:
    """Move the boxes' edges to whole pixels, as torchvision's crops have them: no warp is needed
    to cut such a box out, and resizing costs a quarter of warping."""
    edges = np.rint(boxes * side)
    edges[:, 2:] = np.maximum(edges[:, 2:], edges[:, :2] + 1)
    on_pixels: AnyFloats = edges / side
    return on_pixels


def _sample_geometric(row: AugmentRanges, count: int, rng: Rng) -> tuple[AnyFloats, AnyFloats]:
    """Draw what one of `GEOMETRIC`, or none, does to each image.

    Returns:
        Maps (count, 2, 2) of the crop about its centre, and shifts (count, 2) in crop sides.
    """
    kind = rng.integers(0, len(GEOMETRIC), count)
    kind[rng.random(count) >= row.geometric_share] = -1
    size, size_2 = rng.uniform(-1, 1, (2, count))
    angle = np.where(kind == 0, radians(row.rotate_degrees) * size, 0.0)
    maps = _rotations(angle)
    maps[:, 0, 1] += np.where(kind == 1, row.shear * size, 0.0)
    maps[:, 1, 0] += np.where(kind == 2, row.shear * size, 0.0)
    shifts = np.where(kind == 3, row.translate, 0.0)[:, None] * np.stack([size, size_2], 1)
    return maps, shifts


def _rotations(angles: AnyFloats) -> AnyFloats:
    """Return (B, 2, 2) maps that turn by angles in radians."""
    cos, sin = np.cos(angles), np.sin(angles)
    turned: AnyFloats = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1)
    return turned


def affine_of(
    boxes: AnyFloats, flips: npt.NDArray[np.bool_], maps: AnyFloats, side_in: int, side_out: int
) -> npt.NDArray[np.float32]:
    """Fold crop, flip and (B, 2, 2) map into one: output pixel -> source pixel, (B, 2, 3).

    Pixel i covers [i, i + 1), so that its centre is i + 0.5, as torch and OpenCV's resize have it.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 * side_in
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * side_in
    linear = maps * half[:, :, None]
    linear[flips, :, 0] *= -1
    to_square = 2 / side_out  # u = to_square * (x + 0.5) - 1
    offset = linear.sum(2) * (to_square * 0.5 - 1) + centre - 0.5
    return np.concatenate([linear * to_square, offset[:, :, None]], 2).astype(np.float32)


def tilts_of(tilt: AnyFloats, side_out: int) -> npt.NDArray[np.float32]:
    """Return what a tilt does to output pixels before they are mapped: (B, 3, 3), homogeneous.

    The middle stays where it is; the side that is nearer is seen larger.
    """
    to_square, centred = np.diag([2 / side_out, 2 / side_out, 1.0]), 1 / side_out - 1
    to_square[:2, 2] = centred
    maps = np.tile(np.eye(3), (len(tilt), 1, 1))
    maps[:, 2, :2] = tilt
    return np.asarray(np.linalg.inv(to_square) @ maps @ to_square, np.float32)


def crops_of(affine: npt.NDArray[np.float32], side_in: int, side_out: int) -> npt.NDArray[np.int64]:
    """Find the maps that only cut out whole pixels inside the image, flipped or not.

    Returns:
        (B, 4): x1, y1, x2, y2 in source pixels, the ends excluded; empty for every other map.
    """
    turns = (affine[:, 0, 1] != 0) | (affine[:, 1, 0] != 0)
    first = affine[:, [0, 1], [0, 1]] * -0.5 + affine[:, :, 2] + 0.5
    last = first + affine[:, [0, 1], [0, 1]] * side_out
    edges = np.concatenate([np.minimum(first, last), np.maximum(first, last)], 1)
    crops: npt.NDArray[np.int64] = np.rint(edges).astype(np.int64)
    between = (np.abs(edges - crops) > PIXEL_TOLERANCE).any(1)
    outside = (crops < 0).any(1) | (crops > side_in).any(1)
    crops[turns | between | outside] = 0
    return crops


def _sample_colour(row: AugmentRanges, count: int, rng: Rng) -> npt.NDArray[np.float32]:
    """Draw (count, 3, 4): brightness, contrast, saturation and hue in one matrix."""
    brightness, contrast, saturation = rng.uniform(1 - row.colour, 1 + row.colour, (3, count))
    angle = 2 * np.pi * rng.uniform(-row.hue, row.hue, count)
    eye = np.eye(3)
    scale, offset = _brightened(brightness[:, None, None], contrast[:, None, None])
    saturate = saturation[:, None, None] * eye + (1 - saturation)[:, None, None] * LUMA
    matrix = reduce(np.matmul, (_hue_turn(angle), saturate, scale))
    return np.concatenate([matrix, offset], 2).astype(np.float32)


def _brightened(brightness: AnyFloats, contrast: AnyFloats) -> tuple[AnyFloats, AnyFloats]:
    """Return (B, 3, 3) matrices and (B, 3, 1) offsets of factors (B, 1, 1)."""
    scale: AnyFloats = brightness * contrast * np.eye(3)
    offset: AnyFloats = (1 - contrast) * brightness * np.full((3, 1), MID_GREY)
    return scale, offset


def _hue_turn(angle: AnyFloats) -> AnyFloats:
    """Return (B, 3, 3) matrices that turn the two colour axes of YIQ."""
    turn = np.zeros((len(angle), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = -np.sin(angle), np.sin(angle)
    turned: AnyFloats = _YIQ_TO_RGB @ turn @ _RGB_TO_YIQ
    return turned


def _sample_tone(
    row: AugmentRanges, count: int, rng: Rng
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Draw (count, 256) tables and which of them change anything."""
    has_tone = rng.random(count) < row.tone_share
    kind = rng.integers(0, len(TONE), count)
    bits = rng.integers(row.posterize_bits, 9, count)
    threshold = rng.integers(row.solarize_from, 257, count)
    exponent = np.exp(rng.uniform(-log(row.gamma), log(row.gamma), count))
    value = np.arange(256)
    tone = np.tile(value.astype(np.uint8), (count, 1))
    for index in np.flatnonzero(has_tone):
        if kind[index] == 0:
            tone[index] = value & (0xFF << (8 - bits[index]))
        elif kind[index] == 1:
            tone[index] = np.where(value >= threshold[index], 255 - value, value)
        else:
            tone[index] = np.rint(255 * (value / 255) ** exponent[index])
    return tone, has_tone


def _sample_erase(row: AugmentRanges, count: int, side: int, rng: Rng) -> npt.NDArray[np.int64]:
    """Draw (count, 4) boxes in output pixels; empty where nothing is erased."""
    erased = rng.random(count) < row.erase_share
    area = rng.uniform(0.02, row.erase_area_max, count)
    aspect = np.exp(rng.uniform(log(0.3), log(3.3), count))
    width = np.minimum(np.sqrt(area * aspect), 1.0)
    height = np.minimum(np.sqrt(area / aspect), 1.0)
    x1, y1 = rng.random(count) * (1 - width), rng.random(count) * (1 - height)
    shares = np.stack([x1, y1, x1 + width, y1 + height], 1)
    boxes: npt.NDArray[np.int64] = np.rint(shares * side).astype(np.int64)
    boxes[~erased] = 0
    return boxes
