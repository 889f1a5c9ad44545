"""Backbones: any timm name, checked by name and size before a tensor is made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from carray.config import InputSpec, TrialConfig
from carray.errors import ConfigError
from carray.models.registry import present_name, source_config
from carray.models.scratch import scratch_arguments  # registers our own nets with timm


def input_spec(config: TrialConfig, weights: str | os.PathLike[str] | None = None) -> InputSpec:
    """Return the size, mean and std that the backbone's weights expect.

    Mean and std are the weights' own: timm's entry of the name and tag, or what stands beside a
    local file (`carray.models.weights.normalisation`), in the folder `weights` say.

    Raises:
        ConfigError: the backbone is unknown.
        WeightsError: local weights are named and can't be had.
    """
    from carray.models.weights import find_weights, normalisation

    source = None
    if config.pretrained:
        source = find_weights(config.backbone, config.pretrained, weights)
    default = source_config(config.backbone)
    mean, std = normalisation(source) or (
        tuple(default.get("mean") or (0.485, 0.456, 0.406)),
        tuple(default.get("std") or (0.229, 0.224, 0.225)),
    )
    return InputSpec(size=config.image_size, mean=mean, std=std)


def stored_input_spec(
    config: TrialConfig, weights_file: Path, weights: str | os.PathLike[str] | None = None
) -> InputSpec:
    """Return what a trial's classifier was fed, as its own weights say; else as `input_spec`."""
    from carray.models.weights import normalisation

    if found := normalisation(weights_file):
        return InputSpec(size=config.image_size, mean=found[0], std=found[1])
    return input_spec(config, weights)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Build and run networks on the meta device: they have shapes, and nothing is allocated."""
    with torch.device("meta"), _ShapesAlone():
        yield


class _ShapesAlone(TorchFunctionMode):
    """Passes over what initialises weights and what keeps a shape: most of the time on meta."""

    FILLS = frozenset(
        getattr(Tensor, f"{name}_")
        for name in ("add", "clamp", "erfinv", "fill", "mul", "normal", "uniform", "zero")
    )
    KEEPS = frozenset({F.batch_norm, F.gelu, F.layer_norm, F.silu})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in self.FILLS and args[0].is_meta:
            return args[0]
        if func in self.KEEPS and args[0].is_meta:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


def build_backbone(config: TrialConfig) -> nn.Module:
    """Build the backbone with random weights and without timm's classifier.

    Drop path is given to backbones that take it, the image size to those with a fixed one.

    Raises:
        ConfigError: the backbone is unknown, does not take the image size, or has no gradient
            checkpointing and is to have it.
    """
    kwargs = {"num_classes": 0, **scratch_arguments(config.backbone, config.scratch)}
    if source_config(config.backbone).get("fixed_input_size"):
        kwargs["img_size"] = config.image_size
    if config.drop_path > 0:
        kwargs["drop_path_rate"] = config.drop_path
    try:
        backbone = _create(present_name(config.backbone), kwargs)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        raise size_error(config, error) from None
    if config.grad_checkpointing:
        _checkpoint_gradients(backbone, config.backbone)
    return backbone


def _checkpoint_gradients(backbone: nn.Module, name: str) -> None:
    try:
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError):
        raise ConfigError(
            f"grad_checkpointing=true: the backbone {name!r} has none; take a smaller "
            "device_batch_size and a larger accumulation"
        ) from None


def _create(name: str, kwargs: dict[str, Any]) -> nn.Module:
    try:
        model = timm.create_model(name, pretrained=False, **kwargs)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        others = {key: value for key, value in kwargs.items() if key != "drop_path_rate"}
        model = timm.create_model(name, pretrained=False, **others)
    assert isinstance(model, nn.Module)
    return model


def size_error(config: TrialConfig, cause: Exception) -> ConfigError:
    """Return the error that says a backbone can't see squares of this size."""
    return ConfigError(
        f"backbone {config.backbone!r} can't be built for image_size={config.image_size} "
        f"({str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__}); "
        "choose another image_size, such as the "
        f"{source_config(config.backbone).get('input_size', (3, 224, 224))[-1]} of its weights"
    )


def feature_width(backbone: nn.Module) -> int:
    """Return the width of the pooled features, (images, width)."""
    width: Any = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    return int(width)


def map_width(backbone: nn.Module) -> int:
    """Return the width of the features before pooling."""
    width: Any = backbone.num_features
    return int(width)
