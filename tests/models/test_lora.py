"""A low-rank addition starts at nothing, trains alone, and is saved as an ordinary classifier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from carray.config import FinetuneConfig, build_config
from carray.errors import ConfigError
from carray.models.classifier import Classifier, check_backbone
from carray.models.freezing import set_train_mode, set_trainable
from carray.models.lora import add_lora, lora_parameters, merged_state
from carray.records import TrialState
from carray.training.train import train

LORA = FinetuneConfig(policy="lora", lora_rank=2, lora_alpha=4)
SMALL = {
    "backbone": "test_resnet",
    "pretrained": False,
    "image_size": 32,
    "device_batch_size": 32,
    "finetune.policy": "lora",
    "finetune.lora_rank": 2,
    "ema_decay": 0.5,
    "epochs": 2,
    "optimizer.lr": 0.01,
}


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext"])
def test_it_changes_nothing_at_first_and_only_the_products_and_the_head_train(
    backbone: str,
) -> None:
    classifier = Classifier(build_config({"backbone": backbone, "image_size": 32}), 3).eval()
    images = torch.randn(2, 3, 32, 32)
    before, names = classifier(images), set(classifier.state_dict())
    add_lora(classifier.backbone, LORA, backbone, seed=0)
    assert torch.allclose(classifier(images), before, atol=1e-6)
    set_trainable(classifier, LORA, epoch=1)
    set_train_mode(classifier)
    products = lora_parameters(classifier.backbone)
    trained = {name for name, own in classifier.named_parameters() if own.requires_grad}
    heads = {name for name in names if name.startswith("head.")}
    assert products and trained == {f"backbone.{name}" for name in products} | heads
    assert set(merged_state(classifier)) == names


def test_what_is_saved_predicts_as_what_was_trained() -> None:
    config = build_config({"backbone": "test_vit", "image_size": 32})
    classifier, plain = Classifier(config, 3).eval(), Classifier(config, 3).eval()
    add_lora(classifier.backbone, LORA, "test_vit", seed=0)
    for name, own in classifier.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(own, std=0.1)
    plain.load_state_dict(merged_state(classifier))
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(plain(images), classifier(images), atol=1e-4)


def test_layers_are_chosen_and_a_backbone_without_them_is_refused() -> None:
    counts = {}
    for layers in ("all", "attention", "others"):
        backbone = Classifier(build_config({"backbone": "test_vit"}), 3).backbone
        add_lora(backbone, LORA.model_copy(update={"lora_layers": layers}), "test_vit", seed=0)
        counts[layers] = len(lora_parameters(backbone))
    assert counts["all"] == counts["attention"] + counts["others"] > counts["others"] > 0
    params = {name: value for name, value in SMALL.items() if name != "ema_decay"}
    with pytest.raises(ConfigError, match="the backbone 'test_resnet' has no such layers"):
        check_backbone(build_config({**params, "finetune.lora_layers": "attention"}))


def test_a_trial_goes_on_where_it_stopped_and_leaves_an_ordinary_classifier(
    tmp_path: Path, toy_data: Path
) -> None:
    whole = train(toy_data, SMALL, runs=tmp_path / "whole")
    assert whole.state is TrialState.COMPLETE

    def stop(record: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(toy_data, SMALL, runs=tmp_path / "cut", on_epoch=stop)
    again = train(toy_data, SMALL, runs=tmp_path / "cut")
    assert [row["val/log_loss"] for row in again.epochs] == pytest.approx(
        [row["val/log_loss"] for row in whole.epochs]
    )
    assert whole.parameters == again.parameters
