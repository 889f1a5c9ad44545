"""Twelve models of four brands: nine bodies, and three pairs that only the badge tells apart.

A body is drawn from the side, nose at x = 0, tail at x = 1, y up from the road; units are car
lengths.
"""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[float, float]
Outline = tuple[Point, ...]


@dataclass(frozen=True)
class Body:
    """A silhouette and what is drawn on it."""

    outline: Outline
    windows: tuple[Outline, ...]
    wheels: tuple[float, float]
    """x of the two hubs."""
    wheel_radius: float
    doors: tuple[float, ...]
    """x of the lines between doors."""
    waist: float
    """y of the line below the windows."""


def _points(text: str) -> Outline:
    """Read corners written as SVG writes a polygon's: `x,y x,y`."""
    corners = (corner.split(",") for corner in text.split())
    return tuple((float(x), float(y)) for x, y in corners)


@dataclass(frozen=True)
class Model:
    """One class: a body under a brand's badge."""

    brand: str
    name: str
    body: str

    @property
    def label(self) -> str:
        """The class name."""
        return f"{self.brand} {self.name}"


BODIES = {
    "sedan": Body(
        outline=_points(
            "0.02,0.05 0.0,0.1 0.01,0.165 0.05,0.185 0.27,0.215 0.4,0.305 0.46,0.32 0.6,0.318 "
            "0.66,0.3 0.79,0.225 0.96,0.21 0.99,0.17 1.0,0.1 0.98,0.05"
        ),
        windows=(
            _points("0.31,0.215 0.41,0.29 0.5,0.3 0.5,0.215"),
            _points("0.52,0.215 0.52,0.3 0.6,0.298 0.65,0.28 0.73,0.22"),
        ),
        wheels=(0.19, 0.79),
        wheel_radius=0.078,
        doors=(0.3, 0.51, 0.68),
        waist=0.2,
    ),
    "liftback": Body(
        outline=_points(
            "0.02,0.05 0.0,0.1 0.01,0.165 0.05,0.185 0.27,0.215 0.4,0.305 0.46,0.32 0.58,0.32 "
            "0.72,0.295 0.88,0.245 0.97,0.215 0.99,0.17 1.0,0.1 0.98,0.05"
        ),
        windows=(
            _points("0.31,0.215 0.41,0.29 0.5,0.3 0.5,0.215"),
            _points("0.52,0.215 0.52,0.3 0.6,0.3 0.72,0.272 0.8,0.235"),
        ),
        wheels=(0.19, 0.79),
        wheel_radius=0.078,
        doors=(0.3, 0.51, 0.68),
        waist=0.2,
    ),
    "hatchback": Body(
        outline=_points(
            "0.04,0.05 0.02,0.1 0.03,0.18 0.08,0.21 0.24,0.24 0.37,0.355 0.44,0.372 0.76,0.368 "
            "0.85,0.345 0.93,0.25 0.97,0.2 0.98,0.1 0.96,0.05"
        ),
        windows=(
            _points("0.28,0.24 0.38,0.335 0.53,0.348 0.53,0.24"),
            _points("0.56,0.24 0.56,0.348 0.74,0.345 0.83,0.25"),
        ),
        wheels=(0.2, 0.8),
        wheel_radius=0.09,
        doors=(0.27, 0.545),
        waist=0.225,
    ),
    "wagon": Body(
        outline=_points(
            "0.02,0.05 0.0,0.1 0.01,0.165 0.05,0.185 0.26,0.215 0.38,0.305 0.44,0.322 0.84,0.318 "
            "0.91,0.3 0.98,0.22 0.99,0.17 1.0,0.1 0.98,0.05"
        ),
        windows=(
            _points("0.3,0.215 0.39,0.29 0.48,0.302 0.48,0.215"),
            _points("0.5,0.215 0.5,0.302 0.66,0.302 0.66,0.215"),
            _points("0.68,0.215 0.68,0.302 0.84,0.298 0.91,0.225"),
        ),
        wheels=(0.19, 0.79),
        wheel_radius=0.078,
        doors=(0.29, 0.49, 0.67),
        waist=0.2,
    ),
    "suv": Body(
        outline=_points(
            "0.03,0.09 0.01,0.15 0.02,0.25 0.06,0.275 0.27,0.29 0.36,0.395 0.42,0.415 0.86,0.412 "
            "0.93,0.39 0.97,0.28 0.98,0.15 0.97,0.09"
        ),
        windows=(
            _points("0.31,0.29 0.38,0.38 0.5,0.39 0.5,0.29"),
            _points("0.52,0.29 0.52,0.39 0.7,0.39 0.7,0.29"),
            _points("0.72,0.29 0.72,0.39 0.87,0.387 0.91,0.3"),
        ),
        wheels=(0.2, 0.8),
        wheel_radius=0.105,
        doors=(0.3, 0.51, 0.71),
        waist=0.27,
    ),
    "coupe": Body(
        outline=_points(
            "0.02,0.04 0.0,0.08 0.01,0.125 0.08,0.155 0.34,0.185 0.48,0.262 0.55,0.272 0.64,0.265 "
            "0.8,0.215 0.95,0.195 1.0,0.17 0.99,0.09 0.98,0.04"
        ),
        windows=(_points("0.39,0.187 0.49,0.248 0.58,0.256 0.66,0.24 0.74,0.2"),),
        wheels=(0.18, 0.8),
        wheel_radius=0.084,
        doors=(0.37, 0.66),
        waist=0.17,
    ),
    "convertible": Body(
        outline=_points(
            "0.02,0.04 0.0,0.08 0.01,0.14 0.06,0.165 0.32,0.19 0.36,0.192 0.41,0.175 0.66,0.178 "
            "0.7,0.2 0.95,0.19 0.99,0.15 1.0,0.09 0.98,0.04"
        ),
        windows=(_points("0.33,0.19 0.42,0.262 0.44,0.262 0.39,0.188"),),
        wheels=(0.19, 0.79),
        wheel_radius=0.08,
        doors=(0.37, 0.63),
        waist=0.165,
    ),
    "pickup": Body(
        outline=_points(
            "0.02,0.09 0.0,0.14 0.01,0.235 0.05,0.26 0.22,0.27 0.3,0.37 0.35,0.385 0.53,0.382 "
            "0.56,0.37 0.58,0.25 0.98,0.25 1.0,0.24 1.0,0.13 0.99,0.09"
        ),
        windows=(
            _points("0.26,0.27 0.32,0.355 0.41,0.362 0.41,0.27"),
            _points("0.43,0.27 0.43,0.362 0.53,0.36 0.545,0.27"),
        ),
        wheels=(0.18, 0.79),
        wheel_radius=0.1,
        doors=(0.25, 0.42, 0.56),
        waist=0.25,
    ),
    "van": Body(
        outline=_points(
            "0.03,0.06 0.01,0.11 0.02,0.21 0.06,0.24 0.15,0.27 0.25,0.405 0.31,0.43 0.93,0.43 "
            "0.97,0.41 0.98,0.25 0.98,0.1 0.97,0.06"
        ),
        windows=(_points("0.19,0.27 0.27,0.395 0.4,0.4 0.4,0.27"),),
        wheels=(0.18, 0.8),
        wheel_radius=0.088,
        doors=(0.18, 0.42, 0.68),
        waist=0.25,
    ),
}

MODELS = (
    Model("Aster", "Lumen", "sedan"),
    Model("Aster", "Pip", "hatchback"),
    Model("Aster", "Brise", "convertible"),
    Model("Borealis", "Lyra", "sedan"),
    Model("Borealis", "Saga", "wagon"),
    Model("Borealis", "Fjord", "suv"),
    Model("Corvid", "Raven", "coupe"),
    Model("Corvid", "Jack", "hatchback"),
    Model("Corvid", "Magpie", "liftback"),
    Model("Dunmore", "Ridge", "suv"),
    Model("Dunmore", "Mule", "pickup"),
    Model("Dunmore", "Cargo", "van"),
)

TWINS = tuple(
    (one.label, other.label)
    for number, one in enumerate(MODELS)
    for other in MODELS[number + 1 :]
    if one.body == other.body
)
