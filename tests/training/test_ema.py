"""Averaged weights."""

from __future__ import annotations

import pytest
import torch

from carray.config import build_config
from carray.models.classifier import Classifier, build_classifier
from carray.training.ema import AveragedWeights

NAME = "conv1.0.weight"


@pytest.fixture
def classifier() -> Classifier:
    return build_classifier(
        build_config({"backbone": "resnet10t", "pretrained": False}), 3
    ).classifier


def weight(classifier: Classifier) -> torch.Tensor:
    return classifier.backbone.state_dict()[NAME]


def test_the_average_follows_slowly_and_its_decay_rises(classifier: Classifier) -> None:
    averaged = AveragedWeights(classifier, 0.9)
    start = weight(classifier).clone()
    with torch.no_grad():
        weight(classifier).add_(1.0)
    moved = []
    for _ in range(300):
        before = float((weight(averaged.classifier) - start).mean())
        averaged.update(classifier)
        after = float((weight(averaged.classifier) - start).mean())
        moved.append((after - before) / (1 - before) if before < 0.99 else 0.1)
    assert moved[0] == pytest.approx(0.9, abs=1e-4)  # decay 1/10 at first
    assert moved[1] == pytest.approx(1 - 2 / 11, abs=1e-3)
    assert torch.allclose(weight(averaged.classifier), weight(classifier), atol=1e-4)


def test_a_long_average_has_the_wanted_decay(classifier: Classifier) -> None:
    averaged = AveragedWeights(classifier, 0.5)
    averaged.steps = 1000
    before = weight(classifier).clone()
    with torch.no_grad():
        weight(classifier).add_(1.0)
    averaged.update(classifier)
    assert torch.allclose(weight(averaged.classifier), before + 0.5, atol=1e-6)


def test_statistics_are_averaged_and_counters_copied(classifier: Classifier) -> None:
    averaged = AveragedWeights(classifier, 0.5)
    classifier.train()(torch.randn(4, 3, 32, 32) + 3)
    averaged.update(classifier)
    ours, theirs = (c.backbone.state_dict() for c in (averaged.classifier, classifier))
    assert not torch.equal(
        ours["conv1.1.running_mean"], torch.zeros_like(ours["conv1.1.running_mean"])
    )
    assert ours["conv1.1.num_batches_tracked"] == theirs["conv1.1.num_batches_tracked"] == 1


def test_the_average_is_never_trained(classifier: Classifier) -> None:
    averaged = AveragedWeights(classifier, 0.5)
    assert not averaged.classifier.training
    assert not any(p.requires_grad for p in averaged.classifier.parameters())
