"""Draw a toy car: polygons in car lengths, placed on a canvas by a homography."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from carray.data.pixels.decode import Pixels
from carray.data.synthetic.car_models import BODIES, Body, Model, Point

Colour = tuple[int, int, int]  # RGB
Points = npt.NDArray[np.float64]  # (corners, 2)

SUBPIXEL_BITS = 4  # of cv2's fixed-point coordinates
TYRE, DARK = (24, 24, 27), (38, 38, 42)
PAINTS: tuple[Colour, ...] = (
    (198, 32, 38), (28, 74, 160), (236, 236, 232), (52, 56, 62), (158, 164, 170), (24, 110, 74),
    (232, 178, 30), (122, 44, 118), (214, 104, 36), (88, 160, 196), (96, 70, 48), (18, 30, 58),
)  # fmt: skip


@dataclass
class Canvas:
    """An image to draw on and where the car stands on it."""

    image: Pixels
    place: npt.NDArray[np.float64]
    """Homography from car lengths to pixels, (3, 3)."""

    def fill(self, corners: Sequence[Point] | Points, colour: Colour) -> None:
        """Fill a polygon given in car lengths; antialiased."""
        fixed = self._pixels(corners)
        cv2.fillPoly(self.image, [fixed], colour, cv2.LINE_AA, SUBPIXEL_BITS)

    def line(self, corners: Sequence[Point] | Points, colour: Colour, thickness: int = 1) -> None:
        """Draw a line through points given in car lengths."""
        fixed = self._pixels(corners)
        cv2.polylines(self.image, [fixed], False, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)

    def disc(self, centre: Point, radius: float, colour: Colour, corners: int = 28) -> None:
        """Fill a circle, or with few `corners` a regular polygon, point up."""
        self.fill(ring(centre, radius, corners), colour)

    def _pixels(self, corners: Sequence[Point] | Points) -> npt.NDArray[np.int32]:
        points = np.asarray(corners, np.float64).reshape(-1, 1, 2)
        placed = np.asarray(cv2.perspectiveTransform(points, self.place))
        return np.asarray(np.round(placed * 2**SUBPIXEL_BITS), np.int32)


def ring(centre: Point, radius: float, corners: int, turn: float = 0.0) -> Points:
    """Return the corners of a regular polygon, the first one up."""
    angles = np.pi / 2 + turn + np.arange(corners) * 2 * np.pi / corners
    corners_xy = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(corners_xy * radius + np.asarray(centre), np.float64)


def rounded(corners: Sequence[Point], times: int = 2) -> Points:
    """Round a closed outline (Chaikin, "An algorithm for high-speed curve generation", 1974)."""
    points = np.asarray(corners, np.float64)
    for _ in range(times):
        ahead = np.roll(points, -1, axis=0)
        cut = np.stack([0.8 * points + 0.2 * ahead, 0.2 * points + 0.8 * ahead], axis=1)
        points = cut.reshape(-1, 2)
    return points


def paint_car(canvas: Canvas, model: Model, rng: np.random.Generator) -> None:
    """Draw one car of `model`; paint, wheels, trim and light vary, shape and badge don't."""
    body = BODIES[model.body]
    paint = _vary(PAINTS[rng.integers(len(PAINTS))], rng, 18)
    light = float(rng.uniform(0.85, 1.15))
    paint = _lit(paint, light)
    _paint_body(canvas, body, paint, rng)
    _paint_windows(canvas, body, model.body, paint, rng)
    _paint_trim(canvas, body, paint, rng)
    for hub in body.wheels:
        _paint_wheel(canvas, (hub, body.wheel_radius), body.wheel_radius, rng)
    paint_badge(canvas, model.brand, badge_place(body), 0.055)


def badge_place(body: Body) -> Point:
    """Return the badge's centre: on the front door, above the sill."""
    return body.wheels[0] + body.wheel_radius + 0.1, body.waist * 0.66


def paint_badge(canvas: Canvas, brand: str, centre: Point, radius: float) -> None:
    """Draw a brand's badge on a dark plate: star, ring, triangle or bars."""
    canvas.disc(centre, radius * 1.12, (245, 245, 245))
    canvas.disc(centre, radius, (20, 22, 30))
    if brand == "Aster":
        for turn in (0.0, np.pi / 4):
            canvas.fill(ring(centre, radius * 0.8, 4, turn), (250, 214, 60))
    elif brand == "Borealis":
        canvas.disc(centre, radius * 0.8, (70, 200, 240))
        canvas.disc(centre, radius * 0.42, (20, 22, 30))
    elif brand == "Corvid":
        canvas.fill(ring(centre, radius * 0.85, 3), (240, 62, 52))
    else:
        x, y = centre
        for dx in (-0.4, 0.4):
            left, right = x + (dx - 0.22) * radius, x + (dx + 0.22) * radius
            low, high = y - 0.6 * radius, y + 0.6 * radius
            canvas.fill([(left, low), (right, low), (right, high), (left, high)], (120, 230, 110))


def _paint_body(canvas: Canvas, body: Body, paint: Colour, rng: np.random.Generator) -> None:
    outline = rounded(body.outline)
    canvas.fill(outline, paint)
    low = outline.copy()
    low[:, 1] = np.minimum(low[:, 1], body.waist * 0.55)
    canvas.fill(low, _lit(paint, 0.78))
    sill = outline.copy()
    sill[:, 1] = np.minimum(sill[:, 1], body.waist * 0.34)
    canvas.fill(sill, DARK if rng.random() < 0.4 else _lit(paint, 0.6))
    canvas.line(outline, _lit(paint, 0.55), 1)
    shine = body.waist + 0.004
    canvas.line([(0.06, shine - 0.02), (0.3, shine), (0.94, shine)], _lit(paint, 1.3), 2)
    for hub in body.wheels:
        canvas.disc((hub, body.wheel_radius), body.wheel_radius * 1.2, (14, 14, 16))


def _paint_windows(
    canvas: Canvas, body: Body, kind: str, paint: Colour, rng: np.random.Generator
) -> None:
    glass = _vary((52, 66, 80), rng, 22)
    for window in body.windows:
        corners = rounded(window, 1)
        canvas.fill(corners, glass)
        middle = corners.mean(axis=0)
        glint = middle + (corners - middle) * np.array([0.28, 0.8])
        canvas.fill(glint + np.array([0.02, 0.0]), _lit(glass, 1.5))
    if kind == "convertible":
        for seat in (0.5, 0.62):
            canvas.fill(rounded([(seat, 0.17), (seat + 0.01, 0.225), (seat + 0.045, 0.23),
                                 (seat + 0.06, 0.17)]), (70, 50, 44))  # fmt: skip
    if kind == "pickup":
        canvas.line([(0.6, 0.245), (0.97, 0.245)], _lit(paint, 0.5), 3)


def _paint_trim(canvas: Canvas, body: Body, paint: Colour, rng: np.random.Generator) -> None:
    dark = _lit(paint, 0.62)
    for number, door in enumerate(body.doors):
        canvas.line([(door, body.waist), (door + 0.012, body.waist * 0.4)], dark, 1)
        if number:
            y = body.waist * 0.88
            canvas.line([(door - 0.06, y), (door - 0.025, y)], dark, 2)
    y = body.waist * 0.82
    canvas.fill(rounded([(0.012, y - 0.03), (0.02, y), (0.09, y + 0.004), (0.06, y - 0.028)]),
                (252, 246, 214))  # fmt: skip
    canvas.fill(rounded([(0.985, y - 0.03), (0.98, y + 0.015), (0.925, y + 0.015),
                         (0.945, y - 0.025)]), (206, 26, 30))  # fmt: skip
    if rng.random() < 0.35:
        canvas.line([(0.1, body.waist * 0.6), (0.92, body.waist * 0.6)], _lit(paint, 1.5), 2)


def _paint_wheel(canvas: Canvas, hub: Point, radius: float, rng: np.random.Generator) -> None:
    canvas.disc(hub, radius, TYRE)
    rim = _vary((176, 180, 186), rng, 30)
    canvas.disc(hub, radius * 0.64, rim)
    spokes = int(rng.integers(4, 8))
    turn = rng.uniform(0, np.pi)
    for spoke in range(spokes):
        angle = turn + spoke * 2 * np.pi / spokes
        way = np.array([np.cos(angle), np.sin(angle)]) * radius * 0.42
        canvas.disc((hub[0] + way[0], hub[1] + way[1]), radius * 0.15, TYRE, 10)
    canvas.disc(hub, radius * 0.16, _lit(rim, 0.6), 12)


def _vary(colour: Colour, rng: np.random.Generator, by: int) -> Colour:
    moved = np.asarray(colour) + rng.integers(-by, by + 1, 3)
    return _colour(moved)


def _lit(colour: Colour, factor: float) -> Colour:
    return _colour(np.asarray(colour) * factor)


def _colour(values: npt.NDArray[np.generic]) -> Colour:
    red, green, blue = np.clip(values, 0, 255).astype(int).tolist()
    return red, green, blue
