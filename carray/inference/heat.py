"""Where a whole model looks: its members' Grad-CAM maps, averaged, and drawn over an image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from carray.data.pixels.loader import to_device
from carray.inference.predictor import Geometry, Member, Model, Square
from carray.models.gradcam import grad_cam
from carray.typing import Float32s

MAP_SIDE = 224
STRENGTH = 0.6  # of the colours over the image

Pixels = npt.NDArray[np.uint8]  # (H, W, 3) RGB


def has_gradient(member: Member) -> bool:
    """Say whether a member's answers have a gradient: a forest's have none."""
    return member.card.config.head.kind != "random_forest"


def heat_maps(
    model: Model, images: Sequence[dict[Geometry, Square]], targets: npt.NDArray[np.int64]
) -> Float32s:
    """Return how much each place speaks for its image's target class, (images, side, side).

    Members count by their weights, each scaled to [0, 1] first; those without a gradient don't.
    An image's largest value is 1, or 0 where nothing speaks for the class.
    """
    maps = np.zeros((len(images), MAP_SIDE, MAP_SIDE), np.float32)
    for member, weight in zip(model.members, model.card.combination.average.weights, strict=True):
        if has_gradient(member):
            seen = np.stack([squares[member.geometry] for squares in images])
            maps += weight * _resized(_member_maps(member, seen, targets))
    most = maps.max((1, 2), keepdims=True)
    return np.asarray(maps / np.maximum(most, 1e-9), np.float32)


def _member_maps(member: Member, squares: Square, targets: npt.NDArray[np.int64]) -> Float32s:
    """Return (images, side, side), each from 0 to 1, of squares (images, side, side, 3)."""
    pixels, _ = to_device(member.plan(squares).make(0), member.numerics.device)  # all in one batch
    classes = torch.from_numpy(np.asarray(targets, np.int64)).to(member.numerics.device)
    found = grad_cam(member.classifier, member.numerics.normalise(pixels), classes)
    return np.asarray(found.numpy(), np.float32)


def _resized(maps: Float32s) -> Float32s:
    """Return maps of one size, whatever their member's: (images, MAP_SIDE, MAP_SIDE)."""
    size = (MAP_SIDE, MAP_SIDE)
    resized = [cv2.resize(one, size, interpolation=cv2.INTER_LINEAR) for one in maps]
    return np.asarray(np.stack(resized), np.float32)


def overlaid(image: Pixels, strength: Float32s) -> Pixels:
    """Return the image, greyed, with warm colours where much speaks for the class.

    `strength`, from 0 to 1, is stretched over the image.
    """
    high, wide = image.shape[:2]
    over = cv2.resize(np.ascontiguousarray(strength), (wide, high), interpolation=cv2.INTER_LINEAR)
    level = over.clip(0, 1)
    heat = cv2.applyColorMap((255 * (0.35 + 0.65 * level)).astype(np.uint8), cv2.COLORMAP_TURBO)
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    share = STRENGTH * np.clip(1.6 * level - 0.1, 0, 1)[..., None]
    mixed = (1 - share) * (0.2 * image + 0.8 * grey) + share * heat[..., ::-1]
    return np.asarray(mixed.clip(0, 255), np.uint8)
