"""Losses against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from carray.config import LossConfig
from carray.training.losses import build_loss

LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 2])
HOT = F.one_hot(LABELS, 5).float()
SOFT = 0.3 * HOT + 0.7 * HOT.flip(0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing: float) -> None:
    loss = build_loss(LossConfig(label_smoothing=smoothing), 5)
    hard = F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    soft = F.cross_entropy(LOGITS, SOFT, label_smoothing=smoothing)
    assert loss(LOGITS, HOT).item() == pytest.approx(hard.item(), abs=1e-6)
    assert loss(LOGITS, SOFT).item() == pytest.approx(soft.item(), abs=1e-6)


def test_bce_takes_each_class_by_itself() -> None:
    loss = build_loss(LossConfig(name="bce"), 5)
    p = torch.sigmoid(LOGITS)
    wanted = -(SOFT * p.log() + (1 - SOFT) * (1 - p).log()).mean()
    assert loss(LOGITS, SOFT).item() == pytest.approx(wanted.item(), abs=1e-6)


def test_focal_without_gamma_is_cross_entropy() -> None:
    loss = build_loss(LossConfig(name="focal", focal_gamma=0), 5)
    assert loss(LOGITS, HOT).item() == pytest.approx(F.cross_entropy(LOGITS, LABELS).item())


def test_focal_weighs_hard_images_more() -> None:
    loss = build_loss(LossConfig(name="focal", focal_gamma=2), 2)
    easy, hard = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    target = torch.tensor([[1.0, 0.0]])
    ratio = loss(hard, target) / loss(easy, target)
    plain = F.cross_entropy(hard, target) / F.cross_entropy(easy, target)
    assert ratio > 100 * plain


def test_half_precision_logits_give_a_float32_loss() -> None:
    assert build_loss(LossConfig(), 5)(LOGITS.bfloat16(), HOT).dtype == torch.float32
