"""Augmentation, applied: OpenCV on uint8 batches for a CPU, torch for a GPU; the two agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from carray.data.pixels.augmentation import AugmentParams, crops_of, tilts_of
from carray.data.pixels.blur_backends import blur_opencv, blur_torch

FAR = 2**20  # pixels; no image is as large

Pixels = npt.NDArray[np.uint8]  # (B, side, side, 3), RGB


def apply_opencv(images: Pixels | Sequence[Pixels], params: AugmentParams, side_out: int) -> Pixels:
    """Return (B, side_out, side_out, 3) uint8; the GIL is free in all but a few microseconds."""
    out = np.empty((len(images), side_out, side_out, 3), np.uint8)
    if len(images) == 0:
        return out
    crops = crops_of(params.affine, len(images[0]), side_out).tolist()
    boxes, blur = _boxes(params).tolist(), params.blur.tolist()
    kinds, angles = _blur_kinds(params)
    tilts = tilts_of(params.tilt, side_out)
    for index, (image, done) in enumerate(zip(images, out, strict=True)):
        if len(tilts) and params.tilt[index].any():
            _tilt(image, params.affine[index], tilts[index], done)
        else:
            _place(image, params.affine[index], crops[index], done)
        if params.has_colour:
            cv2.transform(done, params.colour[index], dst=done)
        if params.has_tone[index]:
            cv2.LUT(done, params.tone[index], dst=done)
        if blur[index]:
            blur_opencv(done, blur[index], int(kinds[index]), float(angles[index]))
        for x1, y1, x2, y2 in boxes[index]:
            done[y1:y2, x1:x2] = params.fill[index]
    return out


def _boxes(params: AugmentParams) -> npt.NDArray[np.int64]:
    """Return all boxes that are erased, (B, n, 4)."""
    first = params.erase[:, None]
    return np.concatenate([first, params.more_boxes], 1) if len(params.more_boxes) else first


def _blur_kinds(
    params: AugmentParams,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    if len(params.blur_kind):
        return params.blur_kind, params.blur_angle
    return np.zeros(len(params), np.int64), np.zeros(len(params))


def _tilt(
    image: Pixels, affine: npt.NDArray[np.float32], tilt: npt.NDArray[np.float32], out: Pixels
) -> None:
    whole = np.concatenate([affine, [[0, 0, 1]]]) @ tilt
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REFLECT
    cv2.warpPerspective(image, whole, out.shape[:2], dst=out, flags=flags, borderMode=border)


def _place(image: Pixels, affine: npt.NDArray[np.float32], crop: list[int], out: Pixels) -> None:
    """Cut out and resize where the map does no more than that, else warp."""
    x1, y1, x2, y2 = crop
    if x2 > x1:
        cv2.resize(image[y1:y2, x1:x2], out.shape[:2], dst=out, interpolation=cv2.INTER_LINEAR)
        if affine[0, 0] < 0:
            cv2.flip(out, 1, dst=out)
        return
    # the same pixels as of three channels, in half of the time
    warped = cv2.warpAffine(
        cv2.cvtColor(image, cv2.COLOR_RGB2RGBA),
        affine,
        out.shape[:2],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=out)


def apply_torch(images: Tensor, params: AugmentParams, side_out: int) -> Tensor:
    """Return (B, 3, side_out, side_out) float32 in [0, 255] of uint8 images (B, side, side, 3).

    Works on the images' device.
    """
    device = images.device
    pixels = images.permute(0, 3, 1, 2).float()
    grid = _grid(params, images.shape[1], side_out, device)
    out = F.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    if params.has_colour:
        out = _colour(out, _tensor(params.colour, device))
    if params.has_tone.any():
        out = _tone(out, params, device)
    if params.blur.any():
        out = blur_torch(out, params.blur, *_blur_kinds(params))
    for boxes in _boxes(params).swapaxes(0, 1):
        if (boxes[:, 2] > boxes[:, 0]).any():
            out = _erase(out, boxes, params.fill, device)
    return out


def _tensor(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


def _grid(params: AugmentParams, side_in: int, side_out: int, device: torch.device) -> Tensor:
    """Turn maps between pixels into the (B, side, side, 2) grid of `grid_sample`.

    A crop's edge pixels go on beyond it, as a resize of the crop alone has them.
    """
    steps = torch.arange(side_out, dtype=torch.float32, device=device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3)  # (1, side * side, 3)
    crops = crops_of(params.affine, side_in, side_out)
    if len(params.tilt):
        tilted = places @ _tensor(tilts_of(params.tilt, side_out), device).transpose(1, 2)
        places = tilted / tilted[..., 2:]
        crops[params.tilt.any(1)] = 0
    source = places @ _tensor(params.affine, device).transpose(1, 2)
    crops[crops[:, 2] == 0] = [-FAR, -FAR, FAR, FAR]
    bounds = _tensor(crops, device)[:, None]  # (B, 1, 4)
    source = source.clamp(bounds[..., :2], bounds[..., 2:] - 1)
    grid = (source + 0.5) * (2 / side_in) - 1
    return grid.view(-1, side_out, side_out, 2)


def _colour(out: Tensor, colour_B34: Tensor) -> Tensor:
    flat = out.flatten(2)  # (B, 3, side * side)
    turned = torch.baddbmm(colour_B34[:, :, 3:], colour_B34[:, :, :3], flat)
    return turned.view_as(out).clamp_(0, 255)


def _tone(out: Tensor, params: AugmentParams, device: torch.device) -> Tensor:
    rows = _tensor(np.flatnonzero(params.has_tone), device)
    table = _tensor(params.tone[params.has_tone], device).float()
    values = out[rows].round().long().flatten(1)
    out[rows] = table.gather(1, values).view_as(out[rows])
    return out


def _erase(
    out: Tensor,
    boxes: npt.NDArray[np.int64],
    colours: npt.NDArray[np.uint8],
    device: torch.device,
) -> Tensor:
    box = _tensor(np.ascontiguousarray(boxes), device)
    steps = torch.arange(out.shape[-1], device=device)
    inside_x = (steps >= box[:, 0, None]) & (steps < box[:, 2, None])  # (B, side)
    inside_y = (steps >= box[:, 1, None]) & (steps < box[:, 3, None])
    inside = (inside_y[:, :, None] & inside_x[:, None, :]).unsqueeze(1)  # (B, 1, side, side)
    fill = _tensor(colours, device).float()[:, :, None, None]
    return torch.where(inside, fill, out)
