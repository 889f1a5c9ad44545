"""MixUp and CutMix: drawn with the batch, applied on its device, with soft targets."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from carray.config import AugmentConfig

Rng = np.random.Generator


@dataclass(frozen=True)
class MixParams:
    """How a batch is mixed with itself in reverse order."""

    share: float
    """Weight of each image's own label, in [0, 1]."""
    box: tuple[int, int, int, int] | None = None
    """CutMix: x1, y1, x2, y2 of the part taken from the other image; None is MixUp."""


def sample_mix(augment: AugmentConfig, side: int, rng: Rng) -> MixParams | None:
    """Draw how one batch is mixed; None leaves it as it is. With both alphas each has even odds.

    Zhang et al., "mixup", ICLR 2018; Yun et al., "CutMix", ICCV 2019.
    """
    picked, kind = rng.random(2)
    if (augment.mixup == 0 and augment.cutmix == 0) or picked >= augment.mix_prob:
        return None
    cut = augment.cutmix > 0 and (augment.mixup == 0 or kind < 0.5)
    alpha = augment.cutmix if cut else augment.mixup
    share = float(rng.beta(alpha, alpha))
    return _sample_cut(share, side, rng) if cut else MixParams(share)


def _sample_cut(share: float, side: int, rng: Rng) -> MixParams:
    """Draw a box anywhere; what the border cuts off is given back to the image's own label."""
    half = side * sqrt(1 - share) / 2
    x, y = rng.uniform(0, side, 2)
    x1, y1 = (max(0, round(centre - half)) for centre in (x, y))
    x2, y2 = (min(side, round(centre + half)) for centre in (x, y))
    return MixParams(1 - (x2 - x1) * (y2 - y1) / side**2, (x1, y1, x2, y2))


def mix_images(images: Tensor, mix: MixParams) -> Tensor:
    """Return the mixed images; float (B, 3, side, side), on any device."""
    others = images.flip(0)
    if mix.box is None:
        return torch.lerp(others, images, mix.share)
    x1, y1, x2, y2 = mix.box
    mixed = images.clone()
    mixed[:, :, y1:y2, x1:x2] = others[:, :, y1:y2, x1:x2]
    return mixed


def mix_targets(labels: Tensor, num_classes: int, mix: MixParams) -> Tensor:
    """Return soft targets (B, C) that sum to 1."""
    hot = F.one_hot(labels, num_classes).float()
    return torch.lerp(hot.flip(0), hot, mix.share)
