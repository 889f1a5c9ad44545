"""A backbone in numbers: its layers, parameters and multiply-adds, without a tensor in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from carray.config import build_config
from carray.json_file import JsonResult
from carray.models.backbones import build_backbone, feature_width, shapes_alone, size_error

MOST_CHILDREN = 40  # of a layer that is told by its parts


@dataclass(frozen=True)
class LayerRow:
    """One layer, or a stage of them."""

    name: str
    kind: str
    """Its class."""
    shape: tuple[int, ...]
    """Of what comes out, without the images' axis; () where it isn't one tensor."""
    parameters: int
    multiply_adds: int
    """For one image."""


@dataclass(frozen=True)
class ModelSummary(JsonResult):
    """A backbone for images of one size."""

    backbone: str
    image_size: int
    parameters: int
    multiply_adds: int
    """For one image: convolutions, matrix products and attention."""
    features: int
    """Width of what a head reads."""
    layers: tuple[LayerRow, ...]


def summarise_model(backbone: str, image_size: int | None = None) -> ModelSummary:
    """Return the layers of a backbone of timm's or ours; `image_size` None: its weights' own.

    Raises:
        ConfigError: it is unknown, or doesn't take the size.
    """
    from carray.models.registry import source_config

    size = image_size or int(source_config(backbone).get("input_size", (3, 224, 224))[-1])
    config = build_config({"backbone": backbone, "pretrained": False, "image_size": size})
    with shapes_alone():
        model = build_backbone(config).eval()
        images = torch.empty(1, 3, size, size)
    shapes: dict[str, tuple[int, ...]] = {}
    hooks = [_watch(module, name, shapes) for name, module in model.named_modules()]
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad():
            model(images)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise size_error(config, error) from None
    for hook in hooks:
        hook.remove()
    flops = {
        name.partition(".")[2]: sum(counts.values())
        for name, counts in counter.get_flop_counts().items()
    }
    rows = (_row(name, module, shapes, flops) for name, module in _shown(model))
    return ModelSummary(
        backbone=backbone,
        image_size=size,
        parameters=_parameters(model),
        multiply_adds=counter.get_total_flops() // 2,
        features=feature_width(model),
        layers=tuple(row for row in rows if row.parameters or row.multiply_adds),
    )


def _watch(module: nn.Module, name: str, shapes: dict[str, tuple[int, ...]]) -> Any:
    def keep(_: nn.Module, __: Any, output: Any) -> None:
        shapes[name] = tuple(output.shape[1:]) if isinstance(output, torch.Tensor) else ()

    return module.register_forward_hook(keep)


def _shown(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers, and the parts of a layer that is a row of them."""
    for name, child in model.named_children():
        parts = dict(child.named_children())
        if isinstance(child, nn.Sequential | nn.ModuleList) and 1 < len(parts) <= MOST_CHILDREN:
            yield from ((f"{name}.{part}", module) for part, module in parts.items())
        else:
            yield name, child


def _row(
    name: str,
    module: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
    flops: Mapping[str, int],
) -> LayerRow:
    parameters, kind = _parameters(module), type(module).__name__
    return LayerRow(name, kind, shapes.get(name, ()), parameters, flops.get(name, 0) // 2)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
