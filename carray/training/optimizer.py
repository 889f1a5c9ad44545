"""The optimizer: timm's factory over parameter groups with layer decay and the head's ratio."""

from __future__ import annotations

from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from torch import nn
from torch.optim import SGD, Optimizer

from carray.config import OptimizerConfig
from carray.errors import ConfigError
from carray.models.classifier import Classifier
from carray.typing import LOOKAHEAD

BETAS = ("adamw", "adam", "lamb")  # their momentum is the first beta
FUSED = ("adamw", "adam", "sgd")  # torch has one kernel for all parameters


def build_optimizer(classifier: Classifier, config: OptimizerConfig) -> Optimizer:
    """Build the optimizer over all parameters, frozen ones too: they get no gradient, no update.

    Norms, biases and what timm names (`no_weight_decay`) are not decayed.

    Raises:
        ConfigError: the optimizer takes no such argument, or not with this value.
    """
    return _create(param_groups(classifier, config), config)


def check_optimizer(config: OptimizerConfig) -> None:
    """Refuse arguments that the optimizer doesn't take, or not with their values.

    Raises:
        ConfigError: what `build_optimizer` raises.
    """
    _create([{"params": [nn.Parameter(torch.zeros(1))]}], config)


def _create(groups: list[dict[str, Any]], config: OptimizerConfig) -> Optimizer:
    kwargs: dict[str, Any] = {}
    name = config.name.removeprefix(LOOKAHEAD)
    if name in BETAS:
        kwargs["betas"] = (config.momentum, 0.999)
    if name in FUSED:
        kwargs["fused"] = True
    try:
        optimizer: Optimizer = create_optimizer_v2(
            groups,
            # timm's `sgd` is Nesterov's, who needs a momentum
            opt="momentum" if config.name == "sgd" and config.momentum == 0 else config.name,
            lr=config.lr,
            weight_decay=0.0,
            momentum=config.momentum,
            **kwargs,
            **config.args,
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer.args don't suit {config.name}: {error}") from error
    return optimizer


def start_momenta(optimizer: Optimizer) -> None:
    """Let parameters that have just been freed take their first step beside others' later ones.

    SGD's fused kernel wants a momentum of all parameters of a group or of none; a first step is
    that from a momentum of zeros.
    """
    if not isinstance(optimizer, SGD):
        return
    for group in optimizer.param_groups:
        free = [each for each in group["params"] if each.requires_grad]
        late = [each for each in free if "momentum_buffer" not in optimizer.state.get(each, {})]
        if 0 < len(late) < len(free):
            for each in late:
                optimizer.state[each]["momentum_buffer"] = torch.zeros_like(each)


def param_groups(classifier: Classifier, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Return groups of equal lr and weight decay; `peak_lr` is what the schedule scales."""
    scales = _scales(classifier.backbone, config.layer_decay)
    named: Any = getattr(classifier.backbone, "no_weight_decay", tuple)
    skip = set(named())
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, parameter in classifier.named_parameters():
        inner = name.removeprefix("backbone.")
        is_head = name.startswith("head.")
        lr = config.lr * (config.head_lr_ratio if is_head else scales[inner])
        no_decay = parameter.ndim <= 1 or name.endswith(".bias") or (not is_head and inner in skip)
        decay = 0.0 if no_decay else config.weight_decay
        group = groups.setdefault(
            (lr, decay), {"params": [], "lr": lr, "peak_lr": lr, "weight_decay": decay}
        )
        group["params"].append(parameter)
    return list(groups.values())


def _scales(backbone: nn.Module, layer_decay: float) -> dict[str, float]:
    """Return each parameter's lr scale: 1 in the layer below the head, less further down."""
    if layer_decay == 1 or not hasattr(backbone, "group_matcher"):
        return {name: 1.0 for name, _ in backbone.named_parameters()}
    layers: dict[str, int] = group_parameters(
        backbone,
        backbone.group_matcher(coarse=False),  # type: ignore[operator]
        reverse=True,
    )
    top = max(layers.values())
    return {name: layer_decay ** (top - layer) for name, layer in layers.items()}
