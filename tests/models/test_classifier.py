"""Saving and loading what a trial leaves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from carray.config import InputSpec, build_config
from carray.errors import ConfigError, WeightsError
from carray.models.backbones import stored_input_spec
from carray.models.classifier import (
    build_classifier,
    check_backbone,
    load_classifier,
    save_classifier,
)

CONFIG = build_config(
    {"backbone": "resnet10t", "pretrained": False, "image_size": 64, "drop_path": 0.1}
)
SPEC = InputSpec(size=64, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    file = tmp_path / "best.safetensors"
    save_classifier(build_classifier(CONFIG, 5).classifier.state_dict(), file, SPEC)
    return file


def test_a_saved_classifier_says_the_same_when_loaded(saved: Path) -> None:
    images = torch.randn(2, 3, 64, 64)
    before = build_classifier(CONFIG, 5).classifier.eval()(images)
    assert torch.equal(load_classifier(CONFIG, 5, saved)(images), before)


def test_mean_and_std_travel_with_the_weights(saved: Path) -> None:
    assert stored_input_spec(CONFIG, saved) == SPEC


def test_a_classifier_of_other_classes_is_refused(saved: Path) -> None:
    with pytest.raises(WeightsError, match=r"are no 'resnet10t' with 6 classes: size mismatch"):
        load_classifier(CONFIG, 6, saved)


def test_missing_weights_are_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there are no weights at"):
        load_classifier(CONFIG, 5, tmp_path / "best.safetensors")


def test_a_trial_may_start_from_another_trials_weights(saved: Path) -> None:
    config = CONFIG.model_copy(update={"pretrained": str(saved), "seed": 9})
    images = torch.randn(2, 3, 64, 64)
    started = build_classifier(config, 5).classifier.eval()
    assert torch.equal(started(images), load_classifier(CONFIG, 5, saved)(images))
    wider = build_classifier(config, 8).classifier
    assert wider(images).shape == (2, 8)
    assert torch.equal(
        wider.backbone.state_dict()["conv1.0.weight"],
        started.backbone.state_dict()["conv1.0.weight"],
    )


def test_a_step_of_one_image_is_refused_where_a_norm_would_see_one_value() -> None:
    params = {"backbone": "test_resnet", "pretrained": False, "device_batch_size": 1}
    with pytest.raises(ConfigError, match="device_batch_size=1 must be at least 2"):
        check_backbone(build_config(params | {"image_size": 32}))
    check_backbone(build_config(params | {"image_size": 64}))
    check_backbone(build_config(params | {"image_size": 32, "finetune.policy": "head_only"}))
