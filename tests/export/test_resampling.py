"""Resizing in a graph gives OpenCV's pixels, at sizes of every kind."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch

from carray.config import Fit
from carray.data.pixels.augmentation import identity_params
from carray.data.pixels.augmentation_backends import apply_opencv
from carray.data.pixels.decode import make_square
from carray.export.resampling import Square
from carray.export.seen_view import SeenView
from carray.predictions.views import CHANGED, parse_views

SIZES = ((90, 60), (40, 70), (36, 36), (72, 72), (20, 100), (100, 22), (18, 30), (3, 1), (36, 40))


def smooth(height: int, width: int) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(noise, (3, 3), 0).astype(np.uint8)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_squares_are_those_of_training(fit: Fit) -> None:
    square = Square(36, fit)
    for height, width in SIZES:
        image = smooth(height, width)
        own = square(torch.from_numpy(image)[None])[0].permute(1, 2, 0).numpy()
        apart = np.abs(own - make_square(image, 36, fit))
        assert apart.max() <= 1, (height, width)
        assert (apart > 0).mean() < 0.05, (height, width)


def test_several_images_are_resized_as_each_alone() -> None:
    images = torch.from_numpy(np.stack([smooth(50, 40), smooth(50, 40)[::-1]]))
    square = Square(36, "pad")
    assert torch.equal(square(images)[1:], square(images[1:]))


@pytest.mark.parametrize("name", ["flip", "ten_crop", "five_scales", "random:8", *CHANGED])
def test_views_are_those_of_evaluation(name: str) -> None:
    image = smooth(73, 73)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    for view in parse_views(name):
        expected = apply_opencv([image], identity_params(1, 73, 64, view), 64)[0]
        own = SeenView(73, 64, view)(pixels)[0].permute(1, 2, 0).numpy()
        apart = np.abs(own - expected)
        assert apart.max() <= 1, view
        # OpenCV blurs with weights in 256ths
        assert (apart > 0).mean() < (0.03 if view.blur else 0.002), view
