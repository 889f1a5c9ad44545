"""Grad-CAM: the same logits as the classifier, maps from 0 to 1, on whatever layout there is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from carray.config import build_config
from carray.models.classifier import Classifier, build_classifier
from carray.models.gradcam import WatchedClassifier, grad_cam

LAYOUTS = {  # channels first, channels last, a class token, averaged tokens
    "test_resnet": 64,
    "small_car_cnn": 32,
    "swin_s3_tiny_224": 64,
    "vit_tiny_patch16_224": 64,
    "test_vit": 160,
}


def classifier_of(backbone: str, size: int, head: str = "linear") -> Classifier:
    params = {"backbone": backbone, "pretrained": False, "image_size": size, "head.kind": head}
    return build_classifier(build_config({**params, "head.decoder_width": 32}), 4).classifier.eval()


@pytest.mark.parametrize("head", ["linear", "ml_decoder"])
@pytest.mark.parametrize("backbone", LAYOUTS)
def test_every_layout_has_maps_from_0_to_1(backbone: str, head: str) -> None:
    size = LAYOUTS[backbone]
    classifier = classifier_of(backbone, size, head)
    images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(
            WatchedClassifier(classifier).eval()(images), classifier(images), atol=1e-5
        )
    maps = torch.stack([grad_cam(classifier, images, torch.full((3,), k)) for k in range(4)])
    assert maps.shape == (4, 3, size, size)
    assert 0 <= maps.min() <= maps.max() <= 1
    assert maps.amax((2, 3)).max() == pytest.approx(1)
    assert maps.std() > 0


class _BrightCorner(nn.Module):
    """A backbone that sees brightness alone: one channel, on a grid of 8 x 8."""

    num_features = head_hidden_size = 1

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(images.mean(1, keepdim=True), 8)

    def forward_head(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.mean((2, 3))


def test_what_speaks_for_the_class_is_where_the_map_is_high() -> None:
    classifier = classifier_of("small_car_cnn", 64)
    classifier.backbone = _BrightCorner()
    classifier.head = nn.Linear(1, 2)
    nn.init.constant_(classifier.head.weight, 1.0)
    images = torch.zeros(1, 3, 64, 64)
    images[..., 40:, :24] = 1.0  # below, to the left
    (where,) = grad_cam(classifier, images, torch.tensor([1]))
    assert where[50:, :14].min() > 0.9
    assert where[:30, 34:].max() < 0.1


class _Strided(nn.Module):
    """A backbone of one channel that adds up brightness in layers that halve the image."""

    num_features = head_hidden_size = 1

    def __init__(self, layer: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(layer() for _ in range(4)))
        for parameter in self.parameters():
            nn.init.constant_(parameter, 1 / parameter.numel())

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images.mean(1, keepdim=True))

    def forward_head(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.mean((2, 3))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False),
        lambda: nn.Conv2d(1, 1, 7, stride=2, padding=3, bias=False),
        lambda: Conv2dSame(1, 1, 3, stride=2, bias=False),
        lambda: nn.Conv2d(1, 1, 2, stride=2, bias=False),
        lambda: nn.AvgPool2d(3, 2, 1),
        lambda: nn.AvgPool2d(2),
    ],
)
def test_heat_lies_over_what_is_seen_in_every_corner(layer: Callable[[], nn.Module]) -> None:
    classifier = classifier_of("small_car_cnn", 64)
    classifier.backbone = _Strided(layer)
    classifier.head = nn.Linear(1, 2)
    nn.init.constant_(classifier.head.weight, 1.0)
    images = torch.zeros(4, 3, 256, 256)
    corners = [(y, x) for y in (64, 192) for x in (64, 192)]
    for image, (y, x) in zip(images, corners, strict=True):
        image[:, y - 24 : y + 24, x - 24 : x + 24] = 1.0
    maps = grad_cam(classifier, images, torch.ones(4, dtype=torch.int64))
    pixels = torch.arange(256) + 0.5
    down = (maps.sum(2) * pixels).sum(1) / maps.sum((1, 2))
    right = (maps.sum(1) * pixels).sum(1) / maps.sum((1, 2))
    off = torch.stack([down, right], 1) - torch.tensor(corners)
    assert off.abs().max() < 2  # an even spread of the cells is off by 7.5, either way


def test_a_coarse_map_is_taken_from_an_earlier_stage() -> None:
    watched = WatchedClassifier(classifier_of("resnet10t", 64)).eval()
    assert watched.map_sides(64) == (2, 8)
    assert watched.map_sides(224) == (7, 7)
    assert watched.finer_layer(224) is None
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = torch.stack(
        [grad_cam(watched.classifier, images, torch.full((2,), k)) for k in range(4)]
    )
    assert maps.amax() == pytest.approx(1)
    seen = maps[maps.amax((2, 3)) > 0]  # of a net that knows nothing, some classes have no evidence
    assert len(seen) > 0
    assert (seen > 0.5).float().mean() < 0.5  # eight cells a side hold peaks that two can't


def test_parameters_are_left_without_gradients() -> None:
    classifier = classifier_of("test_resnet", 64)
    grad_cam(classifier, torch.randn(1, 3, 64, 64), torch.tensor([0]))
    assert all(parameter.grad is None for parameter in classifier.parameters())
