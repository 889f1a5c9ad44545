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

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        logits, smooth = logits.float(), config.label_smoothing
        if smooth:
            targets = targets * (1 - smooth) + smooth / num_classes
        if config.name == "bce":
            return F.binary_cross_entropy_with_logits(logits, targets)
        log_p = F.log_softmax(logits, 1)
        if config.name == "focal":
            targets = targets * torch.pow(1 - log_p.exp(), config.focal_gamma)
        return -(targets * log_p).sum(1).mean()

    return loss


def chance_loss(config: LossConfig, shares: Tensor) -> float:
    """Return the loss of saying the classes' `shares` (C,) for every image."""
    seen = shares[shares > 0].double()
    constant = torch.logit(seen, eps=1e-6) if config.name == "bce" else seen.log()
    loss = build_loss(config, len(seen))
    one_hot = torch.eye(len(seen), dtype=torch.float64)
    each = torch.stack([loss(constant[None], target[None]) for target in one_hot])
    return float((each.double() * seen).sum())
