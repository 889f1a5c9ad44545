"""Convolutional nets that are trained from scratch, registered with timm.

One factory builds everything: `small_car_cnn`, `baseline_cars_cnn`, `improved_cars_cnn`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import SqueezeExcite
from timm.models import (
    build_model_with_cfg,
    checkpoint_seq,
    generate_default_cfgs,
    register_model,
)
from torch import Tensor, nn

from carray.config import ScratchConfig
from carray.models.names import CARS_NETS, SMALL_NET

SMALL, (BASELINE, IMPROVED) = SMALL_NET, CARS_NETS
CARS_CHANNELS = (16, 32, 64, 128, 256)
CARS_DENSE = (8192, 1024, 512, 256)
CARS_MAP_SIDE = 7  # 224 px halved five times: 256 x 7 x 7 are the 12,544 inputs of the first
OWN_RESIDUAL = (1, 2)  # blocks of the improved net, on its 32- and 64-channel maps
MOST_DOUBLINGS = 4  # further blocks are as wide as the fifth
SMALL_DEPTH = 3
SQUEEZE_EXCITE, SELF_ATTENTION = "squeeze_excite", "self_attention"
LAST_DROPOUT = 0.6  # of the first dense layer's: 0.5 falls to 0.3


def scratch_arguments(backbone: str, scratch: ScratchConfig) -> dict[str, Any]:
    """Return what `scratch` adds to the making of `backbone`; nothing where it is not ours."""
    if backbone == SMALL:
        return scratch.model_dump()
    taken = ("dropout", "depth", "residual_blocks", "attention")
    return scratch.model_dump(include=set(taken)) if backbone in (BASELINE, IMPROVED) else {}


def wider(backbone: str, scratch: ScratchConfig, factor: int = 4) -> ScratchConfig | None:
    """Return what makes a net of ours `factor` times as wide; None where that isn't a setting."""
    most = 512
    if backbone != SMALL or scratch.filters >= most:
        return None
    return scratch.model_copy(update={"filters": min(most, factor * scratch.filters)})


class ScratchNet(nn.Module):
    """What the nets share: blocks, then dense layers, then an optional linear classifier."""

    blocks: nn.Sequential
    neck: nn.Sequential
    num_features: int
    """Channels of the feature map."""
    head_hidden_size: int
    """Width of the pooled features."""
    grad_checkpointing = False

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

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute each block's activations again for the gradient, or keep them."""
        self.grad_checkpointing = enable

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the feature map (B, num_features, H, W)."""
        again = self.grad_checkpointing and torch.is_grad_enabled()
        maps: Tensor = checkpoint_seq(self.blocks, images) if again else self.blocks(images)
        return maps

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits, or with `pre_logits` the pooled features (B, head_hidden_size)."""
        features: Tensor = self.neck(maps)
        return features if pre_logits else self.fc(features)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, classes), or pooled features where there are no classes."""
        return self.forward_head(self.forward_features(images))


class SmallCarCNN(ScratchNet):
    """Three conv blocks or more, global average pooling, dropout and one dense layer."""

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
        depth: int = 0,
        residual_blocks: str = "own",
        attention: str = "none",
    ) -> None:
        super().__init__()
        widths = (in_chans, *_widths(filters, depth or SMALL_DEPTH))
        block = _Block(kernel_size, batch_norm, squeeze_excite or attention == SQUEEZE_EXCITE)
        residual = _residual_places(residual_blocks, len(widths) - 1, own=())
        self.blocks = _stack(widths, block, residual, SMALL_DEPTH, attention)
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
    """Five conv blocks or more to maps of 7 x 7, then a wide perceptron; for images in [-1, 1].

    Other sizes than 224 px are averaged (or repeated) to 7 x 7 before the perceptron.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_chans: int = 3,
        residual: bool = False,
        dropout: float = 0.5,
        depth: int = 0,
        residual_blocks: str = "own",
        attention: str = "none",
    ) -> None:
        super().__init__()
        widths = (in_chans, *_widths(CARS_CHANNELS[0], depth or len(CARS_CHANNELS)))
        block = _Block(squeeze_excite=attention == SQUEEZE_EXCITE)
        own = OWN_RESIDUAL if residual else ()
        places = _residual_places(residual_blocks, len(widths) - 1, own)
        self.blocks = _stack(widths, block, places, len(CARS_CHANNELS), attention)
        self.num_features, self.head_hidden_size = widths[-1], CARS_DENSE[-1]
        self.neck = _perceptron(widths[-1], dropout)
        self._finish(num_classes)


def _widths(first: int, depth: int) -> list[int]:
    return [first * 2 ** min(place, MOST_DOUBLINGS) for place in range(depth)]


def _residual_places(which: str, depth: int, own: Sequence[int]) -> list[int]:
    """Return the blocks that a residual one follows."""
    half = -(-depth // 2)
    places = {
        "own": list(own),
        "none": [],
        "early": list(range(half)),
        "late": list(range(half, depth)),
        "all": list(range(depth)),
    }
    return [place for place in places[which] if place < depth]


@dataclass(frozen=True)
class _Block:
    """What the conv blocks of a net have in common."""

    kernel_size: int = 3
    batch_norm: bool = True
    squeeze_excite: bool = False

    def build(self, inside: int, outside: int, halves: bool) -> nn.Sequential:
        """Return convolution, norm, ReLU, halving, channel attention (Hu et al., CVPR 2018)."""
        size, has_bias = self.kernel_size, not self.batch_norm
        layers: list[nn.Module] = [
            nn.Conv2d(inside, outside, size, padding=size // 2, bias=has_bias)
        ]
        layers += [nn.BatchNorm2d(outside)] if self.batch_norm else []
        layers += [nn.ReLU(inplace=True)]
        layers += [nn.MaxPool2d(2)] if halves else []
        layers += [SqueezeExcite(outside)] if self.squeeze_excite else []
        return nn.Sequential(*layers)


def _stack(
    widths: Sequence[int], block: _Block, residual: Sequence[int], halvings: int, attention: str
) -> nn.Sequential:
    """Return the blocks from the image's channels on; the first `halvings` halve the map."""
    blocks = []
    for place, (inside, outside) in enumerate(pairwise(widths)):
        built = block.build(inside, outside, halves=place < halvings)
        if place in residual:
            built.append(ResidualBlock(outside, block.batch_norm))
        blocks.append(built)
    if attention == SELF_ATTENTION:
        blocks[-1].append(SelfAttention(widths[-1]))
    return nn.Sequential(*blocks)


def _perceptron(channels: int, dropout: float) -> nn.Sequential:
    side = CARS_MAP_SIDE
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(side), nn.Flatten()]
    widths = (channels * side * side, *CARS_DENSE)
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

    def __init__(self, width: int, batch_norm: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=not batch_norm)
        self.norm1: nn.Module = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=not batch_norm)
        self.norm2: nn.Module = nn.BatchNorm2d(width) if batch_norm else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape."""
        inner = torch.relu(self.norm1(self.conv1(maps)))
        return torch.relu(maps + self.norm2(self.conv2(inner)))


class SelfAttention(nn.Module):
    """Every position of a map looks at all others, by a share that begins at 0.

    Zhang et al., "Self-Attention Generative Adversarial Networks", ICML 2019.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(1, width // 8)
        self.query, self.key = nn.Conv2d(width, inner, 1), nn.Conv2d(width, inner, 1)
        self.value = nn.Conv2d(width, width, 1)
        self.share = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape, (B, width, H, W)."""
        query, key, value = (
            layer(maps).flatten(2).transpose(1, 2)  # (B, positions, channels)
            for layer in (self.query, self.key, self.value)
        )
        seen = nn.functional.scaled_dot_product_attention(query, key, value)
        return maps + self.share * seen.transpose(1, 2).reshape(maps.shape)


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
