"""Low-rank adaptation: weights that stay, each with the product of two thin matrices added.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. What a trial leaves has
the products added in, so that nobody else needs to know.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from carray.config import FinetuneConfig
from carray.errors import ConfigError

ATTENTION = "attn"  # is in timm's names of attention's layers
WITHIN = ".parametrizations.weight."  # torch's name of what a weight is made of
ORIGINAL = f"{WITHIN}original"


class LowRank(nn.Module):
    """Adds `scale * up @ down` to a weight (out, ...); nothing at first, as `up` is zero."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        width_out, width_in = weight.shape[0], weight[0].numel()
        rank = min(rank, width_out, width_in)
        self.down = nn.Parameter(weight.new_empty(rank, width_in))
        self.up = nn.Parameter(weight.new_zeros(width_out, rank))
        self.scale = scale
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight as it is used."""
        added = (self.up @ self.down).view_as(weight)
        return torch.add(weight, added.to(weight.dtype), alpha=self.scale)


def adapted_layers(backbone: nn.Module, finetune: FinetuneConfig, name: str) -> list[nn.Module]:
    """Return the layers that `finetune.lora_layers` means: linear ones and convolutions.

    Depthwise convolutions have no weights to spare, and stay as they are.

    Raises:
        ConfigError: the backbone, called `name`, has none of these.
    """
    found = [layer for path, layer in backbone.named_modules() if _is_meant(path, layer, finetune)]
    if not found:
        raise ConfigError(
            f"finetune.lora_layers={finetune.lora_layers!r}: the backbone {name!r} has no such "
            "layers; take all"
        )
    return found


def _is_meant(path: str, layer: nn.Module, finetune: FinetuneConfig) -> bool:
    if not (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)):
        return False
    in_attention = any(part.startswith(ATTENTION) for part in path.split("."))
    return finetune.lora_layers == "all" or in_attention == (finetune.lora_layers == "attention")


def add_lora(backbone: nn.Module, finetune: FinetuneConfig, name: str, seed: int) -> None:
    """Give the weights of `adapted_layers` their products; `seed` draws the first ones.

    Raises:
        ConfigError: there are no such layers.
    """
    layers = adapted_layers(backbone, finetune, name)
    scale = finetune.lora_alpha / finetune.lora_rank
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in layers:
            product = LowRank(layer.get_parameter("weight"), finetune.lora_rank, scale)
            parametrize.register_parametrization(layer, "weight", product)


def lora_parameters(backbone: nn.Module) -> set[str]:
    """Return the names of the products' parameters."""
    return {
        name
        for name, _ in backbone.named_parameters()
        if WITHIN in name and not name.endswith(ORIGINAL)
    }


@torch.no_grad()
def merged_state(classifier: nn.Module) -> dict[str, Tensor]:
    """Return a classifier's state as one without products has it, with them added in."""
    return dict(_merged(classifier))


def _merged(classifier: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, value in classifier.state_dict().items():
        if name.endswith(ORIGINAL):
            layer = name.removesuffix(ORIGINAL)
            weight = classifier.get_submodule(layer).weight
            assert isinstance(weight, Tensor)
            yield f"{layer}.weight", weight
        elif WITHIN not in name:
            yield name, value
