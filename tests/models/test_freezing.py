"""Which layers train when."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from carray.config import FinetuneConfig, Policy, build_config
from carray.models.classifier import Classifier, build_classifier
from carray.models.freezing import block_groups, free_groups, set_train_mode, set_trainable


@pytest.fixture
def classifier() -> Classifier:
    config = build_config({"backbone": "resnet10t", "pretrained": False, "image_size": 32})
    return build_classifier(config, 4).classifier


@pytest.mark.parametrize(
    ("policy", "every", "expected"),
    [
        ("full", 1, [5, 5, 5, 5]),
        ("head_only", 1, [0, 0, 0, 0]),
        ("unfreeze_at", 2, [0, 0, 5, 5]),
        ("gradual", 1, [0, 1, 2, 3]),
        ("gradual", 2, [0, 0, 1, 1]),
    ],
)
def test_each_policy_frees_its_groups(policy: Policy, every: int, expected: list[int]) -> None:
    finetune = FinetuneConfig(policy=policy, epoch=every)
    assert [free_groups(finetune, epoch, 5) for epoch in range(1, 5)] == expected


def test_gradual_ends_with_everything_free() -> None:
    assert free_groups(FinetuneConfig(policy="gradual", epoch=1), 50, 5) == 5


def test_groups_cover_the_backbone_once_from_the_stem_up(classifier: Classifier) -> None:
    groups = block_groups(classifier.backbone)
    names = [name for group in groups for name in group]
    assert sorted(names) == sorted(name for name, _ in classifier.backbone.named_parameters())
    assert groups[0][0].startswith("conv1")
    assert groups[-1][0].startswith("layer4")


def test_gradual_frees_the_top_first(classifier: Classifier) -> None:
    assert set_trainable(classifier, FinetuneConfig(policy="gradual", epoch=1), 2)
    free = {n.split(".")[0] for n, p in classifier.backbone.named_parameters() if p.requires_grad}
    assert free == {"layer4"}
    assert not set_trainable(classifier, FinetuneConfig(policy="gradual", epoch=1), 2)


def test_frozen_batch_norms_keep_their_statistics(classifier: Classifier) -> None:
    set_trainable(classifier, FinetuneConfig(policy="gradual", epoch=1), 2)
    set_train_mode(classifier)
    before = {k: v.clone() for k, v in classifier.backbone.state_dict().items()}
    classifier(torch.randn(4, 3, 32, 32))
    moved = {
        name.split(".")[0]
        for name, value in classifier.backbone.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == {"layer4"}


def test_a_frozen_backbone_keeps_no_graph_and_the_head_still_learns(
    classifier: Classifier,
) -> None:
    set_trainable(classifier, FinetuneConfig(policy="head_only"), 1)
    set_train_mode(classifier)
    classifier(torch.randn(4, 3, 32, 32)).sum().backward()
    assert all(parameter.grad is None for parameter in classifier.backbone.parameters())
    last = classifier.head[-1]  # type: ignore[index]
    assert isinstance(last, nn.Linear)
    assert last.weight.grad is not None
    assert not classifier.backbone.training
