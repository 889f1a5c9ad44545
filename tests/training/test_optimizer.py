"""Parameter groups, and every optimizer on a real classifier."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from timm.optim import list_optimizers
from torch import nn

from carray.config import FinetuneConfig, OptimizerConfig, build_config
from carray.errors import ConfigError
from carray.models.classifier import Classifier, build_classifier
from carray.models.freezing import set_trainable
from carray.training.optimizer import build_optimizer, param_groups, start_momenta
from carray.typing import OPTIMIZERS


def classifier_of(backbone: str = "resnet10t", size: int = 32) -> Classifier:
    params = {"backbone": backbone, "pretrained": False, "image_size": size}
    return build_classifier(build_config(params), 4).classifier


def lr_by_name(classifier: Classifier, config: OptimizerConfig) -> dict[str, float]:
    groups = param_groups(classifier, config)
    by_id = {id(p): group["lr"] for group in groups for p in group["params"]}
    return {name: by_id[id(p)] for name, p in classifier.named_parameters()}


def test_all_parameters_are_in_one_group_each() -> None:
    classifier = classifier_of()
    groups = param_groups(classifier, OptimizerConfig(layer_decay=0.7, head_lr_ratio=5))
    ids = [id(p) for group in groups for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in classifier.parameters())


def test_the_heads_lr_is_its_ratio_times_the_backbones() -> None:
    lrs = lr_by_name(classifier_of(), OptimizerConfig(lr=0.1, head_lr_ratio=10))
    assert {lr for name, lr in lrs.items() if name.startswith("head.")} == {1.0}
    assert {lr for name, lr in lrs.items() if name.startswith("backbone.")} == {0.1}


def test_layer_decay_lowers_the_lr_layer_by_layer_from_the_top() -> None:
    lrs = lr_by_name(classifier_of("vit_tiny_patch16_224"), OptimizerConfig(lr=1, layer_decay=0.5))
    blocks = [lrs[f"backbone.blocks.{index}.attn.qkv.weight"] for index in range(12)]
    ratios = [low / high for low, high in pairwise(blocks)]
    assert ratios == pytest.approx([0.5] * 11)
    assert lrs["backbone.pos_embed"] == pytest.approx(blocks[0] / 2)
    assert lrs["head.1.weight"] == 1


def test_norms_biases_and_position_embeddings_are_not_decayed() -> None:
    classifier = classifier_of("vit_tiny_patch16_224")
    groups = param_groups(classifier, OptimizerConfig(weight_decay=0.1))
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    decayed = {n for n, p in classifier.named_parameters() if decays[id(p)] > 0}
    assert "backbone.blocks.0.attn.qkv.weight" in decayed
    assert "head.1.weight" in decayed
    for name in ("backbone.pos_embed", "backbone.cls_token", "backbone.blocks.0.norm1.weight"):
        assert name not in decayed
    assert not any(name.endswith(".bias") for name in decayed)


def test_the_optimizers_are_timms() -> None:
    others = set(list_optimizers()) - set(OPTIMIZERS)
    assert set(OPTIMIZERS) <= set(list_optimizers())
    assert {name for name in others if not name.startswith(("bnb", "fused"))} == {
        *("adahessian", "adamwlegacy", "nadamlegacy", "radamlegacy", "kron", "kronc", "kronw")
    }


def test_an_optimizers_own_arguments_reach_it() -> None:
    config = build_config({"optimizer.name": "lion", "optimizer.args.caution": True}).optimizer
    assert build_optimizer(classifier_of(), config).param_groups[0]["caution"] is True
    wrong = build_config({"optimizer.args.epsilon": 1e-3}).optimizer
    with pytest.raises(ConfigError, match=r"optimizer.args don't suit adamw: .*epsilon"):
        build_optimizer(classifier_of(), wrong)


@pytest.mark.parametrize("name", ["sgd", "radam", "lion"])
def test_lookahead_leads_half_of_the_way_back_at_every_sixth_step(name: str) -> None:
    ways = []
    for prefix in ("", "lookahead_"):
        torch.manual_seed(0)
        classifier = classifier_of("test_resnet")
        config = OptimizerConfig.model_validate({"name": prefix + name, "lr": 1e-3})
        optimizer = build_optimizer(classifier, config)
        way = [nn.utils.parameters_to_vector(classifier.parameters()).detach()]
        for _ in range(12):
            for parameter in classifier.parameters():
                parameter.grad = torch.ones_like(parameter)
            optimizer.step()
            way.append(nn.utils.parameters_to_vector(classifier.parameters()).detach())
        ways.append(way)
    alone, led = ways
    assert torch.equal(led[11], alone[11])  # from the sixth step's weights on, timm has it
    torch.testing.assert_close(led[12], (alone[6] + alone[12]) / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss_and_spares_what_is_frozen(name: str) -> None:
    torch.manual_seed(0)
    classifier = classifier_of("test_resnet").eval()
    set_trainable(classifier, FinetuneConfig(policy="head_only"), 1)
    frozen = {k: v.clone() for k, v in classifier.backbone.state_dict().items()}
    config = OptimizerConfig.model_validate({"name": name, "lr": 3e-3, "weight_decay": 0.1})
    optimizer = build_optimizer(classifier, config)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
    losses = []
    for _ in range(8):
        loss = torch.nn.functional.cross_entropy(classifier(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    after = classifier.backbone.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in frozen.items())


def test_momentum_is_adams_first_beta() -> None:
    optimizer = build_optimizer(classifier_of(), OptimizerConfig(name="adamw", momentum=0.8))
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.999)
    optimizer = build_optimizer(classifier_of(), OptimizerConfig(name="sgd", momentum=0.8))
    assert optimizer.param_groups[0]["momentum"] == 0.8


def test_a_parameter_freed_later_steps_as_sgd_alone_would_have_it() -> None:
    kinds = []
    for fused in (True, False):
        first, later = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
        optimizer = torch.optim.SGD([first, later], 0.1, 0.9, nesterov=True, fused=fused)
        later.requires_grad_(False)
        for step in range(4):
            later.requires_grad_(step > 1)
            start_momenta(optimizer)
            for each in (first, later):
                each.grad = torch.full_like(each, 1.0 + step) if each.requires_grad else None
            optimizer.step()
        kinds.append(torch.cat([first, later]).tolist())
    assert kinds[0] == pytest.approx(kinds[1])


def test_sgd_needs_no_momentum() -> None:
    optimizer = build_optimizer(classifier_of(), OptimizerConfig(name="sgd", momentum=0))
    assert isinstance(optimizer, torch.optim.SGD)
    assert {(g["momentum"], g["nesterov"]) for g in optimizer.param_groups} == {(0, False)}
