"""Blur, applied: OpenCV on a CPU, torch on the device; the two agree."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from carray.data.pixels.blur import KINDS, MEDIAN, MOTION, TAPS, motion_kernels

MEDIAN_SIDE = 3  # pixels

Pixels = npt.NDArray[np.uint8]


def blur_opencv(image: Pixels, sigma: float, kind: int, angle: float) -> None:
    """Blur one image (side, side, 3) where it lies."""
    if kind == MEDIAN:
        image[:] = cv2.medianBlur(image, MEDIAN_SIDE)
    elif kind == MOTION:
        kernel = motion_kernels(np.array([sigma]), np.array([angle]))[0]
        cv2.filter2D(image, -1, kernel, dst=image, borderType=cv2.BORDER_REFLECT_101)
    else:
        cv2.GaussianBlur(image, (TAPS, TAPS), sigma, image, borderType=cv2.BORDER_REFLECT_101)


def blur_torch(
    out: Tensor,
    sigmas: npt.NDArray[np.float64],
    kinds: npt.NDArray[np.int64],
    angles: npt.NDArray[np.float64],
) -> Tensor:
    """Blur those of (B, 3, side, side) float32 whose sigma isn't 0."""
    for kind in range(len(KINDS)):
        rows = np.flatnonzero((sigmas > 0) & (kinds == kind))
        if not len(rows):
            continue
        where = torch.from_numpy(rows).to(out.device)
        if kind == MEDIAN:
            out[where] = _median(out[where])
        elif kind == MOTION:
            kernels = torch.from_numpy(motion_kernels(sigmas[rows], angles[rows]))
            out[where] = _convolved(out[where], [kernels.to(out.device)])
        else:
            half = TAPS // 2
            taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigmas[rows, None]) ** 2)
            taps /= taps.sum(1, keepdims=True)
            line = torch.from_numpy(taps.astype(np.float32)).to(out.device)
            out[where] = _convolved(out[where], [line[:, None, :], line[:, :, None]])
    return out


def _convolved(images: Tensor, kernels: list[Tensor]) -> Tensor:
    """Return images (R, 3, side, side), each convolved with its own (R, h, w) of every kernel."""
    planes = images.flatten(0, 1)[None]  # (1, 3 R, side, side)
    planes = F.pad(planes, (TAPS // 2,) * 4, mode="reflect")
    for kernel in kernels:
        own = kernel.repeat_interleave(3, 0)[:, None]
        planes = F.conv2d(planes, own, groups=len(own))
    return planes.view_as(images)


def _median(images: Tensor) -> Tensor:
    padded = F.pad(images, (MEDIAN_SIDE // 2,) * 4, mode="replicate")
    windows = padded.unfold(2, MEDIAN_SIDE, 1).unfold(3, MEDIAN_SIDE, 1)
    return windows.flatten(4).median(dim=4).values
