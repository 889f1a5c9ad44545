"""Losses against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils import compute_class_weight
from torch import Tensor
from torch.nn import functional as F

from carray.config import ClassSampling, LossConfig
from carray.training.losses import (
    build_loss,
    chance_loss,
    class_weights,
    drawn_counts,
    teacher_loss,
)

LOGITS = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 4, 2])
HOT = F.one_hot(LABELS, 5).float()
EVEN = torch.full((5,), 10)
LONG = torch.tensor([100, 50, 10, 4, 1])
SOFT = 0.3 * HOT + 0.7 * HOT.flip(0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(smoothing: float) -> None:
    loss = build_loss(LossConfig(label_smoothing=smoothing), EVEN)
    hard = F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    soft = F.cross_entropy(LOGITS, SOFT, label_smoothing=smoothing)
    assert loss(LOGITS, HOT).item() == pytest.approx(hard.item(), abs=1e-6)
    assert loss(LOGITS, SOFT).item() == pytest.approx(soft.item(), abs=1e-6)


def test_bce_takes_each_class_by_itself() -> None:
    loss = build_loss(LossConfig(name="bce"), EVEN)
    p = torch.sigmoid(LOGITS)
    wanted = -(SOFT * p.log() + (1 - SOFT) * (1 - p).log()).mean()
    assert loss(LOGITS, SOFT).item() == pytest.approx(wanted.item(), abs=1e-6)


def test_focal_without_gamma_is_cross_entropy() -> None:
    loss = build_loss(LossConfig(name="focal", focal_gamma=0), EVEN)
    assert loss(LOGITS, HOT).item() == pytest.approx(F.cross_entropy(LOGITS, LABELS).item())


def test_focal_weighs_hard_images_more() -> None:
    loss = build_loss(LossConfig(name="focal", focal_gamma=2), torch.ones(2))
    easy, hard = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    target = torch.tensor([[1.0, 0.0]])
    ratio = loss(hard, target) / loss(easy, target)
    plain = F.cross_entropy(hard, target) / F.cross_entropy(easy, target)
    assert ratio > 100 * plain


def test_half_precision_logits_give_a_float32_loss() -> None:
    assert build_loss(LossConfig(), EVEN)(LOGITS.bfloat16(), HOT).dtype == torch.float32


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "focal"])
@pytest.mark.parametrize("kind", ["sqrt", "balanced", "effective"])
def test_an_image_weighs_what_its_class_does_and_all_of_them_one_each(name: str, kind: str) -> None:
    plain = LossConfig.model_validate({"name": name})
    config = plain.model_copy(update={"class_weights": kind})
    weights = class_weights(config, LONG)
    assert (weights.diff() > 0).all()
    assert (weights * LONG).sum() == pytest.approx(LONG.sum())
    both = [build_loss(each, LONG)(LOGITS[3:4], HOT[3:4]) for each in (plain, config)]
    assert both[1] == pytest.approx(both[0] * weights[3])
    assert build_loss(config, EVEN)(LOGITS, HOT) == pytest.approx(
        build_loss(plain, EVEN)(LOGITS, HOT)
    )


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.repeat(np.arange(5), LONG)
    theirs = compute_class_weight("balanced", classes=np.arange(5), y=labels)
    ours = class_weights(LossConfig(class_weights="balanced"), LONG)
    assert ours.tolist() == pytest.approx(theirs.tolist())


def test_adjusted_logits_are_moved_by_the_log_shares() -> None:
    loss = build_loss(LossConfig(logit_adjustment=1.0), LONG)
    wanted = F.cross_entropy(LOGITS + (LONG / LONG.sum()).log(), LABELS)
    assert loss(LOGITS, HOT).item() == pytest.approx(wanted.item())


@pytest.mark.parametrize("sampling", ["natural", "sqrt", "balanced"])
@pytest.mark.parametrize("kind", ["none", "balanced", "effective"])
@pytest.mark.parametrize("adjustment", [0.0, 1.0])
@pytest.mark.parametrize("name", ["cross_entropy", "bce"])
def test_chance_is_the_best_constant(
    sampling: ClassSampling, kind: str, adjustment: float, name: str
) -> None:
    config = LossConfig.model_validate(
        {"name": name, "class_weights": kind, "logit_adjustment": adjustment}
    )
    counts = drawn_counts(LONG, sampling)
    logits = torch.zeros(5, requires_grad=True)
    loss, shares = build_loss(config, counts), counts / counts.sum()
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        each = torch.stack([loss(logits[None], hot[None]) for hot in torch.eye(5)])
        total = (each * shares).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(step)  # type: ignore[no-untyped-call]
    assert chance_loss(config, counts) == pytest.approx(float(step().detach()), rel=2e-3)


def test_classes_drawn_alike_are_as_many() -> None:
    assert drawn_counts(LONG, "balanced").tolist() == pytest.approx([33.0] * 5)
    assert drawn_counts(LONG, "natural").tolist() == LONG.tolist()
    assert drawn_counts(torch.tensor([4, 0, 4]), "balanced").tolist() == [4, 0, 4]


def test_a_teachers_loss_is_its_cross_entropy_less_its_entropy_times_temperature_squared() -> None:
    teacher = F.log_softmax(LOGITS.flip(0), 1)
    p = F.softmax(teacher / 2, 1)
    wanted = 4 * (p * (p.log() - F.log_softmax(LOGITS / 2, 1))).sum(1).mean()
    assert teacher_loss(LOGITS, teacher, 2.0).item() == pytest.approx(wanted.item(), abs=1e-5)
    assert teacher_loss(teacher, teacher, 2.0).item() == pytest.approx(0, abs=1e-6)
