"""The world around a toy car: where it stands, what is behind it and what hides a part of it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from carray.data.pixels.decode import Pixels
from carray.data.synthetic.car_models import MODELS
from carray.data.synthetic.draw import Canvas, Colour, paint_badge, ring

BRANDS = tuple(sorted({model.brand for model in MODELS}))


def paint_background(image: Pixels, horizon: int, rng: np.random.Generator) -> None:
    """Fill the image: sky or wall above the horizon, road below, and clutter."""
    top, low = (_any_colour(rng, 130, 256) for _ in range(2))
    _gradient(image[:horizon], top, low)
    road = int(rng.integers(100, 180))
    tint = rng.integers(-18, 19, 3)
    near, far = (_clip(np.full(3, road + shift) + tint) for shift in (20, -20))
    _gradient(image[horizon:], near, far)
    for _ in range(int(rng.integers(2, 8))):
        _paint_house(image, horizon, rng)
    for _ in range(int(rng.integers(1, 6))):
        _paint_tree(image, horizon, rng)
    for _ in range(int(rng.integers(0, 3))):
        _paint_sign(image, horizon, rng)
    _paint_road_marks(image, horizon, rng)
    image[:] = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(1.5, 4.5)))  # out of focus


def place_car(
    width: int, height: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float64], int]:
    """Return the homography from car lengths to pixels and the y of the road under the car."""
    length = width * rng.uniform(0.78, 0.95)
    left = rng.uniform(0.02, 0.98) * (width - length)
    road = height * rng.uniform(0.76, 0.9)
    tall = length * rng.uniform(1.0, 1.08)
    near = rng.uniform(-0.08, 0.08)  # one end is nearer: taller, and lower on the image
    angle = np.deg2rad(rng.uniform(-3, 3))
    flip = rng.random() < 0.5
    base = np.array([[0, 0], [1, 0], [1, 0.4], [0, 0.4]], np.float32)
    ends = [(0.0, 1 - near), (1.0, 1 + near), (1.0, 1 + near), (0.0, 1 - near)]
    placed = []
    for (_, y), (x, scale) in zip(base, ends, strict=True):
        sideways = (x - 0.5) * length * (1 - abs(near) * 0.6)
        upward = -y * tall * scale + (scale - 1) * 0.12 * length
        turned = (
            sideways * np.cos(angle) - upward * np.sin(angle),
            sideways * np.sin(angle) + upward * np.cos(angle),
        )
        mirrored = -turned[0] if flip else turned[0]
        placed.append((left + length / 2 + mirrored, road + turned[1]))
    place = cv2.getPerspectiveTransform(base, np.array(placed, np.float32))
    return np.asarray(place, np.float64), int(road)


def paint_shadow(canvas: Canvas) -> None:
    """Darken the road under the car, softly."""
    mask = Canvas(np.zeros_like(canvas.image), canvas.place)
    mask.fill([(0.0, 0.015), (1.0, 0.015), (1.03, -0.03), (-0.03, -0.03)], (255, 255, 255))
    soft = cv2.GaussianBlur(mask.image, (0, 0), 4).astype(np.float32) / 255
    canvas.image[:] = (canvas.image * (1 - 0.65 * soft)).astype(np.uint8)


def paint_foreground(canvas: Canvas, rng: np.random.Generator) -> None:
    """Hide a part of the car in a third of the images: a pole, a bush, a cone or a bollard."""
    if rng.random() < 0.65:
        return
    height, width = canvas.image.shape[:2]
    x = int(rng.uniform(0.05, 0.95) * width)
    kind = rng.integers(3)
    if kind == 0:
        half = int(rng.uniform(0.008, 0.022) * width)
        cv2.rectangle(
            canvas.image, (x - half, 0), (x + half, height), _any_colour(rng, 40, 180), -1
        )
    elif kind == 1:
        green = _clip(np.array([50, 105, 45]) + rng.integers(-30, 31, 3))
        for _ in range(14):
            _paint_leaf(canvas.image, x, green, rng)
    else:
        half, up = int(0.04 * width), int(rng.uniform(0.15, 0.3) * height)
        cone = np.array([[x - half, height], [x + half, height], [x, height - up]], np.int32)
        cv2.fillPoly(canvas.image, [cone], (236, 110, 30), cv2.LINE_AA)


def _paint_leaf(image: Pixels, x: int, green: Colour, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    at = (x + int(rng.normal(0, 0.05 * width)), height - int(rng.uniform(0, 0.2) * height))
    shade = _clip(np.array(green) + rng.integers(-16, 17, 3))
    cv2.circle(image, at, int(rng.uniform(0.02, 0.05) * width), shade, -1, cv2.LINE_AA)


def spoil(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the image as a camera would: light, contrast, tint, blur and noise vary."""
    contrast, light = rng.uniform(0.8, 1.15), rng.uniform(-18, 18)
    tint = rng.normal(0, 6, 3)
    out = (image.astype(np.float32) - 128) * contrast + 128 + light + tint
    soft = np.asarray(cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.3, 0.8))))
    noisy = soft + rng.normal(0, rng.uniform(0, 4), out.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _paint_house(image: Pixels, horizon: int, rng: np.random.Generator) -> None:
    width = image.shape[1]
    left, wide = rng.uniform(-0.1, 1) * width, rng.uniform(0.06, 0.28) * width
    top = int(horizon - rng.uniform(0.1, 0.95) * horizon)
    wall = _any_colour(rng, 90, 230)
    cv2.rectangle(image, (int(left), top), (int(left + wide), horizon), wall, -1)
    pane = _clip(np.array(wall) * rng.uniform(0.7, 1.25))
    step = int(rng.integers(9, 20))
    for y in range(top + 4, horizon - step, step):
        for x in range(int(left) + 4, int(left + wide) - step // 2, step):
            cv2.rectangle(image, (x, y), (x + step // 2, y + step // 2), pane, -1)


def _paint_tree(image: Pixels, horizon: int, rng: np.random.Generator) -> None:
    x = int(rng.uniform(0, 1) * image.shape[1])
    size = int(rng.uniform(0.05, 0.14) * image.shape[1])
    cv2.line(image, (x, horizon), (x, horizon - size), (84, 60, 42), 4, cv2.LINE_AA)
    leaf = np.array([90, 140, 84]) + rng.integers(-40, 41, 3)
    for _ in range(6):
        at = (x + int(rng.normal(0, size / 3)), horizon - size - int(rng.normal(0, size / 3)))
        cv2.circle(image, at, size // 2, _clip(leaf + rng.integers(-14, 15, 3)), -1, cv2.LINE_AA)


def _paint_sign(image: Pixels, horizon: int, rng: np.random.Generator) -> None:
    """Paint a brand's badge or a plain shape behind the car: badges elsewhere mean nothing."""
    scale = rng.uniform(0.03, 0.06) * image.shape[1]
    at = (rng.uniform(0, 1) * image.shape[1], rng.uniform(0.05, 0.9) * horizon)
    place = np.array([[scale, 0, at[0]], [0, -scale, at[1]], [0, 0, 1.0]])
    canvas = Canvas(image, place)
    if rng.random() < 0.5:
        paint_badge(canvas, BRANDS[rng.integers(len(BRANDS))], (0.0, 0.0), 1.0)
    else:
        canvas.fill(ring((0.0, 0.0), 1.0, int(rng.integers(3, 9))), _any_colour(rng, 30, 255))


def _paint_road_marks(image: Pixels, horizon: int, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    y = int(rng.uniform(horizon, height))
    dash, colour = int(rng.integers(20, 60)), _any_colour(rng, 150, 255)
    for x in range(-int(rng.integers(0, dash)), width, 2 * dash):
        cv2.line(image, (x, y), (x + dash, y), colour, int(rng.integers(2, 6)), cv2.LINE_AA)


def _gradient(part: Pixels, first: Colour, last: Colour) -> None:
    along = np.linspace(0, 1, max(1, part.shape[0]))[: part.shape[0], None, None]
    part[:] = (np.asarray(first) * (1 - along) + np.asarray(last) * along).astype(np.uint8)


def _any_colour(rng: np.random.Generator, low: int, high: int) -> Colour:
    """Return a random colour, each channel in [low, high), drawn towards gray."""
    colour = rng.integers(low, high, 3)
    return _clip(0.55 * colour + 0.45 * colour.mean())


def _clip(values: npt.NDArray[np.generic]) -> Colour:
    red, green, blue = np.clip(values, 0, 255).astype(int).tolist()
    return red, green, blue
