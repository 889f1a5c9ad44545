"""Known recipes: how a backbone is trained where nobody says, one table with its sources.

`known_recipe` answers for what a configuration leaves open. Searches try it first, and `carray
train` takes it. The figures behind the rows that we measured are in `tests/benchmarks/README.md`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from carray.config import CLASSICAL_HEADS, TrialConfig, build_config, flatten
from carray.errors import ConfigError
from carray.typing import LOOKAHEADS, OPTIMIZERS

LR = "optimizer.lr"
BATCH = 32  # images in a step for which the rates hold
WARMUP_STEPS = 20  # a warm-up is an epoch, and no fewer steps than this
WARMUP_SHARE = 0.2  # of a training: the most that a warm-up takes
LONG = 24  # epochs from which a pretrained network knows a small training set by heart


@dataclass(frozen=True)
class Recipe:
    """How one family of backbones is trained with AdamW and batches of `BATCH` images."""

    names: tuple[str, ...]
    """Beginnings of timm's names."""
    lr: float
    """At `millions` of parameters; larger ones get less, by the root of the ratio."""
    millions: float
    lr_range: tuple[float, float]
    weight_decay: float
    strength: float
    """`augment.strength`."""
    layer_decay: float = 1.0
    head_lr_ratio: float = 1.0
    drop_path: float = 0.0
    smoothing: float = 0.1
    """`loss.label_smoothing` of `LONG` epochs and more; shorter trainings have none."""
    schedule: str = "cosine"

    def lr_for(self, parameters: int) -> float:
        """Return the rate of a backbone of so many parameters."""
        low, high = self.lr_range
        return min(max(self.lr * math.sqrt(self.millions * 1e6 / max(1, parameters)), low), high)

    def smoothing_for(self, epochs: int) -> float:
        """Return the label smoothing of a training of so many epochs.

        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016. It
        keeps a long training from growing sure of what it has learnt by heart, and slows a short
        one.
        """
        return self.smoothing if epochs >= LONG else 0.0


# Vision transformers: layer decay 0.65 to 0.75, drop path 0.1, weight decay 0.05 (He et al.,
# "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022; Bao et al., "BEiT", ICLR 2022).
_TRANSFORMER = Recipe(
    ("vit", "deit", "eva", "beit", "flexivit", "naflexvit", "samvit", "cait", "xcit"),
    lr=1e-4,
    millions=22,
    lr_range=(2e-5, 3e-4),
    weight_decay=0.05,
    strength=0.3,
    layer_decay=0.75,
    head_lr_ratio=10.0,
    drop_path=0.1,
)
# Hierarchical and modern nets: Liu et al., "A ConvNet for the 2020s", CVPR 2022, and "Swin
# Transformer", ICCV 2021: layer decay 0.8 to 0.9, rates for the batch of a small data set.
_HIERARCHICAL = Recipe(
    ("convnext", "swin", "caformer", "convformer", "maxvit", "maxxvit", "coatnet", "hiera", "mvit"),
    lr=2e-4,
    millions=28,
    lr_range=(3e-5, 5e-4),
    weight_decay=0.05,
    strength=0.3,
    layer_decay=0.8,
    head_lr_ratio=10.0,
    drop_path=0.1,
)
# Everything else is taken for a net with batch norm. Measured with MobileNets of 0.4 to 3.2 million
# parameters; the larger ones go by the root rule, which meets what is usual for a ResNet-50.
_CONVOLUTIONAL = Recipe(
    (), lr=2e-3, millions=2.2, lr_range=(2e-4, 3e-3), weight_decay=0.01, strength=0.3
)
# From scratch, on few images and in few epochs; measured with nets of 0.2 to 5 million parameters.
_FROM_SCRATCH = Recipe(
    (),
    lr=4e-3,
    millions=2.2,
    lr_range=(5e-4, 6e-3),
    weight_decay=0.05,
    strength=0.1,
    smoothing=0.0,
    schedule="one_cycle",
)
FAMILIES = (_TRANSFORMER, _HIERARCHICAL)

LR_OF_ADAMW = {
    **dict.fromkeys(("adamw", "adam", "nadam", "nadamw", "cadamw"), 1.0),
    "lamb": 1.6,
    "rmsprop": 0.3,
    "lion": 0.2,
}
"""A rate over AdamW's; by the root of the batch (Malladi et al., NeurIPS 2022). Lion takes three to
ten times less (Chen et al., "Symbolic Discovery of Optimization Algorithms", NeurIPS 2023). RAdam
has none: at AdamW's it learned far less in 180 steps, with Lookahead at three times that too.
"""
LIKE_SGD = ("sgd", "sgdw", "sgdp", "momentum", "nesterov", "nesterovw")
SGD_LR = 0.01
"""For momentum 0.9 and batches of `BATCH`; by the batch (Goyal et al., 2017). Kornblith et al., "Do
Better ImageNet Models Transfer Better?", CVPR 2019, fine-tune on Stanford Cars near it."""
SGD_WEIGHT_DECAY = 1e-4
FROZEN_LR = 3e-3
"""Of a head on frozen features: it is a convex problem, and small."""


def known_recipe(params: Mapping[str, Any], images: int) -> dict[str, Any]:
    """Return values for what `params` leave open: by dotted names, to be laid under `params`.

    Args:
        params: dotted names and values of `TrialConfig`, as far as they are chosen.
        images: of one epoch; decides how long a warm-up is.

    Raises:
        ConfigError: a name is unknown, or a value breaks a rule.
    """
    chosen = flatten(build_config(params))
    if chosen["head.kind"] in CLASSICAL_HEADS:
        return {}
    recipe = recipe_of(chosen["backbone"], bool(chosen["pretrained"]))
    known = {
        **_optimizer_part(recipe, chosen),
        "drop_path": recipe.drop_path,
        "loss.label_smoothing": recipe.smoothing_for(chosen["epochs"]),
        "augment.strength": recipe.strength,
        "schedule.name": recipe.schedule,
    }
    known["schedule.warmup_epochs"] = _warmup({**known, **params}, chosen, images)
    return {name: value for name, value in known.items() if name not in params}


def complete_config(config: TrialConfig | Mapping[str, Any] | None, images: int) -> TrialConfig:
    """Return a whole configuration as it is, and dotted names with the known recipe under them.

    Raises:
        ConfigError: a name is unknown, a value breaks a rule, or no rate is known for an optimizer.
    """
    if isinstance(config, TrialConfig):
        return config
    params = config or {}
    name = params.get("optimizer.name")
    unknown = {*OPTIMIZERS, *LOOKAHEADS}.difference(LR_OF_ADAMW, LIKE_SGD)
    if name in unknown and LR not in params:
        raise ConfigError(f"no learning rate is known for optimizer.name={name!r}: give {LR}")
    return build_config({**known_recipe(params, images), **params})


def recipe_of(backbone: str, pretrained: bool) -> Recipe:
    """Return the row of the table that a backbone belongs to."""
    if not pretrained:
        return _FROM_SCRATCH
    # timm's tiny ones are called after their families; the hub's have an owner before the name
    name = backbone.rpartition("/")[2].removeprefix("test_")
    return next((f for f in FAMILIES if name.startswith(f.names)), _CONVOLUTIONAL)


def _optimizer_part(recipe: Recipe, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rates and decays; a frozen backbone's head has a rate of its own."""
    batch = chosen["device_batch_size"] * chosen["accumulation"] / BATCH
    name, frozen = chosen["optimizer.name"], chosen["finetune.policy"] == "head_only"
    if name in LIKE_SGD:
        lr, decay = SGD_LR * batch, SGD_WEIGHT_DECAY
    else:
        base = FROZEN_LR if frozen else recipe.lr_for(count_parameters(chosen["backbone"]))
        # of others no rate is known: somebody gives or draws one
        lr, decay = base * LR_OF_ADAMW.get(name, 1.0) * math.sqrt(batch), recipe.weight_decay
    return {
        LR: float(f"{min(lr, 1.0):.2g}"),
        "optimizer.weight_decay": decay,
        "optimizer.layer_decay": recipe.layer_decay,
        "optimizer.head_lr_ratio": 1.0 if frozen else recipe.head_lr_ratio,
    }


def _warmup(known: Mapping[str, Any], chosen: Mapping[str, Any], images: int) -> float:
    """Return the epochs of warm-up; one-cycle has a rise of its own."""
    if known["schedule.name"] == "one_cycle":
        return 0.0
    steps = max(1, images // (chosen["device_batch_size"] * chosen["accumulation"]))
    return float(round(min(max(1.0, WARMUP_STEPS / steps), WARMUP_SHARE * chosen["epochs"]), 2))


@lru_cache(maxsize=256)
def count_parameters(backbone: str) -> int:
    """Return how many parameters a backbone has, its classifier left out; nothing is allocated.

    Raises:
        ConfigError: timm doesn't know the name.
    """
    import timm

    from carray.models.backbones import shapes_alone
    from carray.models.registry import check_name, present_name

    check_name(backbone)
    with shapes_alone():
        built = timm.create_model(present_name(backbone), num_classes=0)
    return sum(parameter.numel() for parameter in built.parameters())
