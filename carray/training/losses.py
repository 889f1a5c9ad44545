"""Training losses over hard labels or soft targets, each the mean over images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from carray.config import ClassSampling, LossConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(config: LossConfig, counts: Tensor) -> Loss:
    """Return f(logits (B, C), soft targets (B, C)) -> scalar; float32 whatever the logits are.

    `bce` takes each class by itself (Wightman et al., "ResNet strikes back", 2021), `focal` is Lin
    et al., "Focal Loss for Dense Object Detection", ICCV 2017, over the softmax. An image weighs
    what `class_weights` gives its class. Logits are moved by the classes' log shares (Menon et
    al., "Long-tail learning via logit adjustment", ICLR 2021), in training alone.

    Args:
        config: which loss.
        counts: (C,): images of each class in an epoch, on the device that the loss is computed on.
    """
    num_classes = len(counts)
    weights = class_weights(config, counts) if config.class_weights != "none" else None
    offset = config.logit_adjustment * _shares(counts).log() if config.logit_adjustment else None

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        logits, smooth, hard = logits.float(), config.label_smoothing, targets
        if offset is not None:
            logits = logits + offset
        if smooth:
            targets = targets * (1 - smooth) + smooth / num_classes
        if config.name == "bce":
            each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
        else:
            log_p = F.log_softmax(logits, 1)
            if config.name == "focal":
                targets = targets * torch.pow(1 - log_p.exp(), config.focal_gamma)
            each = -(targets * log_p).sum(1)
        return (each if weights is None else each * (hard @ weights)).mean()

    return loss


def teacher_loss(logits: Tensor, teacher_log_p: Tensor, temperature: float) -> Tensor:
    """Return the mean divergence of a student's answers from its teacher's, times temperature^2.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015; the square keeps gradients
    as large as those of the labels.

    Args:
        logits: the student's, (B, C).
        teacher_log_p: log-probabilities of the same images, (B, C).
        temperature: both are divided by it.
    """
    student = F.log_softmax(logits.float() / temperature, 1)
    teacher = F.log_softmax(teacher_log_p.float() / temperature, 1)
    divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def class_weights(config: LossConfig, counts: Tensor) -> Tensor:
    """Return (C,) weights in float32 whose mean over images is 1; a class without images has 0.

    `effective` is by the effective number of images (Cui et al., "Class-Balanced Loss Based on
    Effective Number of Samples", CVPR 2019).
    """
    images = counts.clamp(min=1).float()
    if config.class_weights == "effective":
        beta = config.effective_beta
        weights = (1 - beta) / (1 - torch.pow(beta, images))
    elif config.class_weights == "none":
        weights = torch.ones_like(images)
    else:
        weights = images.pow(-1.0 if config.class_weights == "balanced" else -0.5)
    weights = weights * (counts > 0)
    return weights * counts.sum() / (weights * counts).sum()


def drawn_counts(counts: Tensor, sampling: ClassSampling) -> Tensor:
    """Return how many images (C,) of each class an epoch has, where classes are drawn so."""
    share = counts.float().pow({"natural": 1.0, "sqrt": 0.5, "balanced": 0.0}[sampling])
    share = share * (counts > 0)
    return counts.sum() * share / share.sum()


def chance_loss(config: LossConfig, counts: Tensor) -> float:
    """Return the loss of saying the same for every image: the best that knows classes alone.

    Args:
        config: which loss.
        counts: (C,): images of each class in an epoch.
    """
    seen = counts[counts > 0].cpu()
    priors = (class_weights(config, seen) * _shares(seen)).double()
    constant = torch.logit(priors, eps=1e-6) if config.name == "bce" else priors.log()
    constant = constant - config.logit_adjustment * _shares(seen).double().log()
    loss = build_loss(config, seen)
    one_hot = torch.eye(len(seen))
    each = torch.stack([loss(constant[None], target[None]) for target in one_hot])
    return float((each.double() * _shares(seen).double()).sum())


def _shares(counts: Tensor) -> Tensor:
    """Return the classes' shares of all images; one without any has as little as one image."""
    images = counts.clamp(min=1).float()
    return images / images.sum()
