"""Blur, drawn: Gaussian, of motion, or a median."""

from __future__ import annotations

from math import pi

import numpy as np
import numpy.typing as npt

from carray.typing import AnyFloats

SIGMA = 0.1, 2.0  # pixels of the output
TAPS = 9  # of a kernel's side: two of the largest sigmas either way
KINDS = ("gaussian", "motion", "median")
GAUSSIAN, MOTION, MEDIAN = range(3)
LENGTH, WIDTH = 2.0, 0.35  # of a motion: sigmas along it, pixels across it


def sample_sigmas(share: float, count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw (count,) sigmas, uniform as torchvision's GaussianBlur has them; 0 where none."""
    if not share:
        return np.zeros(count)  # and what is drawn next stays what it was
    blurred, sigma = rng.random(count) < share, rng.uniform(*SIGMA, count)
    return np.where(blurred, sigma, 0.0)


def sample_kinds(
    kind: str, count: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Draw (count,) numbers into `KINDS`, and (count,) angles of motions in radians."""
    if kind == KINDS[GAUSSIAN]:
        return np.zeros(count, np.int64), np.zeros(count)
    own = KINDS.index(kind) if kind in KINDS else None
    kinds = rng.integers(0, len(KINDS), count) if own is None else np.full(count, own)
    return kinds.astype(np.int64), rng.uniform(0, pi, count)


def motion_kernels(sigmas: AnyFloats, angles: AnyFloats) -> npt.NDArray[np.float32]:
    """Return (B, TAPS, TAPS): a Gaussian drawn out along each angle, that adds up to 1."""
    steps = np.arange(TAPS) - TAPS // 2
    y, x = np.meshgrid(steps, steps, indexing="ij")
    cos, sin = (turn(angles)[:, None, None] for turn in (np.cos, np.sin))
    along, across = x * cos + y * sin, y * cos - x * sin
    length = np.maximum(LENGTH * sigmas, WIDTH)[:, None, None]
    kernels = np.exp(-0.5 * ((along / length) ** 2 + (across / WIDTH) ** 2))
    kernels /= kernels.sum((1, 2), keepdims=True)
    return np.asarray(kernels, np.float32)
