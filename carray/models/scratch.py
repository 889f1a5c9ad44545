"""Convolutional nets that are trained from scratch, registered with timm.

One factory builds everything: `small_car_cnn`, `baseline_cars_cnn`, `improved_cars_cnn`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import SqueezeExcite
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from carray.config import ScratchConfig

SMALL, BASELINE, IMPROVED = "small_car_cnn", "baseline_cars_cnn", "improved_cars_cnn"
CARS_CHANNELS = (16, 32, 64, 128, 256)
CARS_DENSE = (8192, 1024, 512, 256)
CARS_MAP_SIDE = 7  # 224 px halved five times: 256 x 7 x 7 are the 12,544 inputs of the first
RESIDUAL_CHANNELS = (32, 64)
LAST_DROPOUT = 0.6  # of the first dense layer's: 0.5 falls to 0.3


def scratch_arguments(backbone: str, scratch: ScratchConfig) -> dict[str, Any]:
    """Return what `scratch` adds to the making of `backbone`; nothing where it is not ours."""
    if backbone == SMALL:
        return scratch.model_dump()
    return {"dropout": scratch.dropout} if backbone in (BASELINE, IMPROVED) else {}


class ScratchNet(nn.Module):
    """What the nets share: blocks, then dense layers, then an optional linear classifier."""

    blocks: nn.Sequential
    neck: nn.Sequential
    num_features: int
    """Channels of the feature map."""
    head_hidden_size: int
    """Width of the pooled features."""

    def _finish(self, num_classes: int) -> None:
        self.num_classes = num_classes
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier on top; 0 classes: none."""
        self.num_classes = num_classes
        width = self.head_hidden_size
        self.fc: nn.Module = nn.Linear(width, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.fc

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Group the parameters: each block, then the dense layers above them all."""
        return {"stem": r"^blocks\.0\.", "blocks": [(r"^blocks\.(\d+)\.", None), (r"^neck", (99,))]}

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the feature map (B, num_features, H, W)."""
        maps: Tensor = self.blocks(images)
        return maps

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits, or with `pre_logits` the pooled features (B, head_hidden_size)."""
        features: Tensor = self.neck(maps)
        return features if pre_logits else self.fc(features)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes), or pooled features where there are no classes."""
        return self.forward_head(self.forward_features(images))


class SmallCarCNN(ScratchNet):
    """Three conv blocks, global average pooling, dropout and one dense layer."""

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        filters: int = 32,
        kernel_size: int = 3,
        dense_units: int = 256,
        batch_norm: bool = True,
        squeeze_excite: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        widths = (in_chans, filters, 2 * filters, 4 * filters)
        self.blocks = nn.Sequential(
            *(
                _conv_block(inside, outside, kernel_size, batch_norm, squeeze_excite)
                for inside, outside in pairwise(widths)
            )
        )
        self.num_features, self.head_hidden_size = widths[-1], dense_units
        self.neck = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(widths[-1], dense_units),
            nn.ReLU(inplace=True),
        )
        self._finish(num_classes)


class CarsCNN(ScratchNet):
    """Five conv blocks to 256 maps of 7 x 7, then a wide perceptron; for images in [-1, 1].

    Other sizes than 224 px are averaged (or repeated) to 7 x 7 before the perceptron.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        residual: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        widths = (in_chans, *CARS_CHANNELS)
        blocks = []
        for inside, outside in zip(widths, CARS_CHANNELS, strict=False):
            block = _conv_block(inside, outside, 3, batch_norm=True, squeeze_excite=False)
            if residual and outside in RESIDUAL_CHANNELS:
                block.append(ResidualBlock(outside))
            blocks.append(block)
        self.blocks = nn.Sequential(*blocks)
        self.num_features, self.head_hidden_size = CARS_CHANNELS[-1], CARS_DENSE[-1]
        self.neck = _perceptron(dropout)
        self._finish(num_classes)


def _conv_block(
    inside: int, outside: int, kernel_size: int, batch_norm: bool, squeeze_excite: bool
) -> nn.Sequential:
    """Return convolution, norm, ReLU, halving, and channel attention (Hu et al., CVPR 2018)."""
    layers: list[nn.Module] = [
        nn.Conv2d(inside, outside, kernel_size, padding=kernel_size // 2, bias=not batch_norm)
    ]
    if batch_norm:
        layers.append(nn.BatchNorm2d(outside))
    layers += [nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    if squeeze_excite:
        layers.append(SqueezeExcite(outside))
    return nn.Sequential(*layers)


def _perceptron(dropout: float) -> nn.Sequential:
    side = CARS_MAP_SIDE
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(side), nn.Flatten()]
    widths = (CARS_CHANNELS[-1] * side * side, *CARS_DENSE)
    fall = (1 - LAST_DROPOUT) / (len(CARS_DENSE) - 1)
    for place, (inside, outside) in enumerate(pairwise(widths)):
        layers += [
            nn.Linear(inside, outside, bias=False),
            nn.BatchNorm1d(outside),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout * (1 - fall * place)),
        ]
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """Two convolutions beside the identity (He et al., CVPR 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape."""
        inner = torch.relu(self.norm1(self.conv1(maps)))
        return torch.relu(maps + self.norm2(self.conv2(inner)))


def _build(net: type[ScratchNet], name: str, pretrained: bool, kwargs: Any) -> ScratchNet:
    built = build_model_with_cfg(net, name, pretrained, **kwargs)
    assert isinstance(built, ScratchNet)
    return built


def _cfg(mean: tuple[float, ...], std: tuple[float, ...]) -> dict[str, Any]:
    """Return timm's description of a net without public weights."""
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "mean": mean,
        "std": std,
        "classifier": "fc",
        "first_conv": "blocks.0.0",
    }


MINUS_ONE_TO_ONE = _cfg((0.5,) * 3, (0.5,) * 3)
default_cfgs: Final = generate_default_cfgs(  # timm looks for this name
    {
        SMALL: _cfg(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
        BASELINE: MINUS_ONE_TO_ONE,
        IMPROVED: MINUS_ONE_TO_ONE,
    }
)


@register_model  # type: ignore[untyped-decorator]
def small_car_cnn(pretrained: bool = False, **kwargs: Any) -> ScratchNet:
    """Three conv blocks (32, 64, 128), pooling, dropout, dense 256; all of it searchable."""
    return _build(SmallCarCNN, SMALL, pretrained, kwargs)


@register_model  # type: ignore[untyped-decorator]
def baseline_cars_cnn(pretrained: bool = False, **kwargs: Any) -> ScratchNet:
    """Five blocks of 16 to 256 channels, then 12544-8192-1024-512-256."""
    return _build(CarsCNN, BASELINE, pretrained, kwargs)


@register_model  # type: ignore[untyped-decorator]
def improved_cars_cnn(pretrained: bool = False, **kwargs: Any) -> ScratchNet:
    """The baseline with residual blocks on its 32- and 64-channel maps."""
    return _build(CarsCNN, IMPROVED, pretrained, {"residual": True, **kwargs})
