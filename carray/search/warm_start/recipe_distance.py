"""How far apart two recipes are: each name that varies is one axis, from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from carray.search.space.distributions import is_number

LOG_FROM = 8.0  # positive values that span more than this factor are compared by their logarithm
Point = Mapping[str, Any]  # dotted name -> value
Vectors = npt.NDArray[np.float64]  # (points, axes)


@dataclass(frozen=True)
class _Axis:
    """One number's place between the lowest and the highest value seen."""

    name: str
    low: float
    width: float
    log: bool

    def place(self, point: Point) -> float:
        value = point.get(self.name)
        if not is_number(value):
            return 0.5
        number = math.log(max(value, 1e-300)) if self.log else float(value)
        return min(2.0, max(-1.0, (number - self.low) / self.width))


@dataclass(frozen=True)
class RecipeDistance:
    """Axes fitted to points; recipes that differ in one choice are a distance of 1 apart."""

    axes: tuple[_Axis, ...]
    choices: tuple[tuple[str, Any], ...]
    """(name, value) of every choice seen."""

    @classmethod
    def fit(cls, points: Sequence[Point]) -> Self:
        """Take an axis for each name whose values differ among `points`."""
        axes, choices = [], []
        for name in dict.fromkeys(name for point in points for name in point):
            values = [point[name] for point in points if name in point]
            if all(is_number(value) for value in values):
                axes += _axis(name, values)
            elif len(distinct := list(dict.fromkeys(values))) > 1:
                choices += [(name, value) for value in distinct]
        return cls(tuple(axes), tuple(choices))

    def vectors(self, points: Sequence[Point]) -> Vectors:
        """Return each point's place, (points, axes)."""
        half = math.sqrt(0.5)
        rows = [
            [axis.place(point) for axis in self.axes]
            + [half * (point.get(name) == value) for name, value in self.choices]
            for point in points
        ]
        return np.array(rows, np.float64).reshape(len(points), -1)


def squared_distances(one: Vectors, other: Vectors) -> Vectors:
    """Return the squared distance of every row of `one` to every row of `other`."""
    found: Vectors = ((one[:, None, :] - other[None, :, :]) ** 2).sum(axis=2)
    return found


def _axis(name: str, values: Sequence[float]) -> list[_Axis]:
    low, high = float(min(values)), float(max(values))
    if low == high:
        return []
    if low > 0 and high > LOG_FROM * low:
        return [_Axis(name, math.log(low), math.log(high) - math.log(low), log=True)]
    return [_Axis(name, low, high - low, log=False)]
