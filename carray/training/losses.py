"""Training losses over hard labels or soft targets, each the mean over images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from carray.config import LossConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(config: LossConfig, num_classes: int) -> Loss:
    """Return f(logits (B, C), soft targets (B, C)) -> scalar; float32 whatever the logits are.

    `bce` takes each class by itself (Wightman et al., "ResNet strikes back", 2021), `focal` is Lin
    et al., "Focal Loss for Dense Object Detection", ICCV 2017, over the softmax.
    """
    core = {"cross_entropy": _cross_entropy, "bce": _bce, "focal": _focal(config.focal_gamma)}

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        smooth = config.label_smoothing
        if smooth:
            targets = targets * (1 - smooth) + smooth / num_classes
        return core[config.name](logits.float(), targets)

    return loss


def chance_loss(config: LossConfig, shares: Tensor) -> float:
    """Return the loss of saying the classes' `shares` (C,) for every image."""
    seen = shares[shares > 0].double()
    constant = torch.logit(seen, eps=1e-6) if config.name == "bce" else seen.log()
    loss = build_loss(config, len(seen))
    one_hot = torch.eye(len(seen), dtype=torch.float64)
    each = torch.stack([loss(constant[None], target[None]) for target in one_hot])
    return float((each.double() * seen).sum())


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return -(targets * F.log_softmax(logits, 1)).sum(1).mean()


def _bce(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets)


def _focal(gamma: float) -> Loss:
    def focal(logits: Tensor, targets: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, 1)
        hard = torch.pow(1 - log_p.exp(), gamma)
        return -(targets * hard * log_p).sum(1).mean()

    return focal
