"""The second look at a suspected near-duplicate: the two files are laid over each other.

A thumbnail can't tell a copy from another car on the same turntable, under the same frame and logo.
So the middle of the pictures decides, once local features (Lowe, "Distinctive Image Features from
Scale-Invariant Keypoints", IJCV 2004) have found how one lies on the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from carray.data.pixels.decode import Box, Pixels, UnreadableImage, read_whole
from carray.typing import Rows

LONG_SIDE = 256  # of the pictures compared
BLUR = 1.5  # pixels, so that a shift of one doesn't count
FEATURES_SCALE = 0.625  # at which features are found: SIFT takes most of a look, by the pixel
MAX_FEATURES = 400
RATIO = 0.75  # Lowe's: the best match is so much nearer than the second
MAX_SHIFT = 3.0  # pixels by which a matched feature may be off
MIN_FEATURES = 6  # that must agree on how the pictures lie
CELLS = 8  # the picture is judged in CELLS x CELLS parts
FLAT = 6.0  # grey levels of spread under which a cell shows nothing to compare
KEPT_FEATURES = 4096  # pictures whose features stay in memory, some 250 kB each

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Overlay:
    """How two pictures agree, laid over each other."""

    features: int = 0
    """Matches that agree on one position."""
    middle: float = 0.0
    """Median correlation of the cells in the middle, in [-1, 1]."""
    worst: float = 0.0
    """The same, of their lower quarter."""
    colour: float = 255.0
    """Median distance of the cells' colours in the middle, in levels of Lab's a and b."""


@dataclass(frozen=True)
class _Features:
    image: Pixels
    points: npt.NDArray[np.float32]
    descriptors: npt.NDArray[np.float32]


MIN_MIDDLE = 0.95  # chosen on photographs of Stanford Cars; tests/benchmarks judges on others
MAX_COLOUR = 8.0
MIN_MIDDLE_UNMOVED = 0.5  # edge to edge: of 89 copies that only features confirm the least is 0.61
MIN_WORST_PLAIN = 0.9  # where too few features were found to lay one over the other
MIN_MIDDLE_LABELS = 0.98  # where the two bear different labels: evidence against a copy
MAX_COLOUR_LABELS = 4.0


def same_picture(
    one: tuple[Path, Box | None],
    other: tuple[Path, Box | None],
    *,
    mirrored: bool = False,
    labels_differ: bool = False,
) -> bool:
    """Say whether two files, each cut to its box, show one picture; a file that can't be read
    again shows none."""
    middle = MIN_MIDDLE_LABELS if labels_differ else MIN_MIDDLE
    colour = MAX_COLOUR_LABELS if labels_differ else MAX_COLOUR
    try:
        for found in _overlays(one, other, mirrored):
            sure = found.features >= MIN_FEATURES or found.worst >= MIN_WORST_PLAIN
            if sure and found.middle >= middle and found.colour <= colour:
                return True
    except (UnreadableImage, OSError):
        pass
    return False


def _overlays(
    one: tuple[Path, Box | None], other: tuple[Path, Box | None], mirrored: bool
) -> Iterator[Overlay]:
    """Yield how the two agree edge to edge, which mostly settles it, then by their features."""
    found = _edge_to_edge(_image(*one, False), _image(*other, mirrored))
    yield found
    if found.middle >= MIN_MIDDLE_UNMOVED and found.colour <= MAX_COLOUR:
        yield overlay(one, other, mirrored=mirrored)


def overlay(
    one: tuple[Path, Box | None], other: tuple[Path, Box | None], *, mirrored: bool = False
) -> Overlay:
    """Lay the second picture over the first, mirrored if asked.

    Raises:
        UnreadableImage: a file can't be decoded.
        OSError: it can't be read.
    """
    return _fit(_features(*one, False), _features(*other, mirrored))


@lru_cache(maxsize=KEPT_FEATURES)
def _image(path: Path, box: Box | None, mirrored: bool) -> Pixels:
    """Return the picture as it is compared: (H, W, 3) in Lab, small and blurred."""
    image = read_whole(path, box, 0.0)
    scale = LONG_SIDE / max(image.shape[:2])
    size = [max(16, round(side * scale)) for side in image.shape[1::-1]]
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    image = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2Lab), (0, 0), BLUR)
    return np.ascontiguousarray(image[:, ::-1]) if mirrored else image


@lru_cache(maxsize=KEPT_FEATURES)
def _features(path: Path, box: Box | None, mirrored: bool) -> _Features:
    image = _image(path, box, mirrored)
    scale = FEATURES_SCALE
    small = cv2.resize(image[..., 0], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    sift: Any = cv2.SIFT_create(MAX_FEATURES)  # type: ignore[attr-defined]
    points, found = sift.detectAndCompute(small, None)
    places = np.array([point.pt for point in points], np.float32).reshape(-1, 2) / scale
    described = np.zeros((0, 128), np.float32) if found is None else found
    return _Features(image, places, described)


def _fit(one: _Features, other: _Features) -> Overlay:
    move, features = _move(one, other)
    if move is None:  # smooth pictures
        return _edge_to_edge(one.image, other.image)
    return _judge(one.image, other.image, move, features)


def _edge_to_edge(one: Pixels, other: Pixels) -> Overlay:
    (height, width), (high, wide) = one.shape[:2], other.shape[:2]
    return _judge(one, other, np.diag([width / wide, height / high, 1.0])[:2], 0)


def _move(one: _Features, other: _Features) -> tuple[Floats | None, int]:
    """Return what lays the second picture over the first, (2, 3), and the features that agree."""
    if min(len(one.points), len(other.points)) < 2:
        return None, 0
    matches = cv2.BFMatcher().knnMatch(other.descriptors, one.descriptors, k=2)
    good = [two[0] for two in matches if two[0].distance < RATIO * two[1].distance]
    if len(good) < MIN_FEATURES:
        return None, 0
    source = other.points[[match.queryIdx for match in good]]
    target = one.points[[match.trainIdx for match in good]]
    cv2.setRNGSeed(0)
    move, agree = cv2.estimateAffinePartial2D(source, target, ransacReprojThreshold=MAX_SHIFT)
    if move is None or agree.sum() < MIN_FEATURES or not 0.5 < float(np.hypot(*move[0, :2])) < 2:
        return None, 0
    return move, int(agree.sum())


def _judge(one: Pixels, other: Pixels, move: Floats, features: int) -> Overlay:
    height, width = one.shape[:2]
    moved = cv2.warpAffine(other, move, (width, height), flags=cv2.INTER_AREA)
    inside = cv2.warpAffine(np.full(other.shape[:2], 255, np.uint8), move, (width, height))
    rows, columns = (np.linspace(0, side, CELLS + 1).astype(int) for side in (height, width))
    rows, columns = rows[CELLS // 4 : -(CELLS // 4)], columns[1:-1]  # the middle's
    middle = slice(rows[0], rows[-1]), slice(columns[0], columns[-1])
    a, b = (np.moveaxis(x[middle].astype(np.float64), 2, 0) for x in (one, moved))
    outside = (inside[middle] < 255)[None]
    squares = np.stack([a[0] ** 2, b[0] ** 2, a[0] * b[0]])
    means = _cell_means(np.concatenate([a, b, squares, outside]), rows, columns)
    spreads = np.sqrt(np.maximum(means[[6, 7]] - means[[0, 3]] ** 2, 0))
    shown = (means[9] == 0) & (spreads.max(axis=0) >= FLAT)
    if not shown.any():
        return Overlay(features)
    products = means[8] - means[0] * means[3]
    correlations = (products / np.maximum(spreads.prod(axis=0), FLAT**2 / 4))[shown]
    colours = np.hypot(means[1] - means[4], means[2] - means[5])[shown]
    low, mid = np.quantile(correlations, (0.25, 0.5))
    return Overlay(features, float(mid), float(low), float(np.median(colours)))


def _cell_means(planes: Floats, rows: Rows, columns: Rows) -> Floats:
    """Return the mean of each plane, (P, H, W), in the cells that begin at `rows`, `columns`."""
    bands = np.add.reduceat(planes, rows[:-1] - rows[0], axis=1)
    sums = np.add.reduceat(bands, columns[:-1] - columns[0], axis=2)
    means: Floats = sums / (np.diff(rows)[:, None] * np.diff(columns))
    return means
