"""Known recipes: what is left open is filled, what is chosen stays, and every result is valid."""

from __future__ import annotations

from typing import Any

import pytest

from carray.config import TrialConfig, build_config
from carray.errors import ConfigError
from carray.models.recipes import (
    FROZEN_LR,
    LONG,
    SGD_LR,
    complete_config,
    count_parameters,
    known_recipe,
)

IMAGES = 640


@pytest.mark.parametrize(
    ("backbone", "layer_decay", "low", "high"),
    [
        ("mobilenetv2_100", 1.0, 1.5e-3, 2.5e-3),
        ("mobilenetv2_035", 1.0, 2.5e-3, 3e-3),
        ("resnet50.a1_in1k", 1.0, 3e-4, 1e-3),
        ("convnext_tiny.in12k_ft_in1k", 0.8, 1e-4, 3e-4),
        ("vit_small_patch16_224", 0.75, 5e-5, 2e-4),
        ("test_vit", 0.75, 1e-4, 3e-4),
    ],
)
def test_a_family_and_its_size_decide_the_rate(
    backbone: str, layer_decay: float, low: float, high: float
) -> None:
    recipe = known_recipe({"backbone": backbone}, IMAGES)
    assert low <= recipe["optimizer.lr"] <= high
    assert recipe["optimizer.layer_decay"] == layer_decay
    assert recipe["schedule.warmup_epochs"] == 1.0


def test_what_is_chosen_stays_and_the_rest_goes_by_it() -> None:
    chosen = {"backbone": "test_resnet", "optimizer.lr": 7e-4, "augment.strength": 0.9}
    config = complete_config(chosen, IMAGES)
    assert (config.optimizer.lr, config.augment.strength) == (7e-4, 0.9)
    whole = TrialConfig(backbone="test_resnet")
    assert complete_config(whole, IMAGES) is whole


@pytest.mark.parametrize(
    ("params", "lr"),
    [
        ({"optimizer.name": "sgd"}, SGD_LR),
        ({"optimizer.name": "sgd", "device_batch_size": 64}, 2 * SGD_LR),
        ({"finetune.policy": "head_only"}, FROZEN_LR),
        ({"finetune.policy": "head_only", "accumulation": 4}, 2 * FROZEN_LR),
    ],
)
def test_the_rate_goes_by_optimizer_batch_and_policy(params: dict[str, Any], lr: float) -> None:
    assert known_recipe({"backbone": "test_resnet", **params}, IMAGES)["optimizer.lr"] == lr


@pytest.mark.parametrize(
    ("epochs", "batch", "warmup"), [(1, 32, 0.2), (10, 32, 1.0), (10, 128, 2.0), (40, 128, 4.0)]
)
def test_a_warm_up_is_an_epoch_but_no_few_steps_and_no_large_share(
    epochs: int, batch: int, warmup: float
) -> None:
    params = {"backbone": "test_resnet", "epochs": epochs, "device_batch_size": batch}
    assert known_recipe(params, IMAGES)["schedule.warmup_epochs"] == warmup


@pytest.mark.parametrize(
    ("epochs", "pretrained", "smoothing"),
    [(1, True, 0.0), (LONG - 1, True, 0.0), (LONG, True, 0.1), (LONG, False, 0.0)],
)
def test_the_labels_of_long_fine_tunings_are_smoothed(
    epochs: int, pretrained: bool, smoothing: float
) -> None:
    params = {"backbone": "test_resnet", "epochs": epochs, "pretrained": pretrained}
    assert known_recipe(params, IMAGES)["loss.label_smoothing"] == smoothing


def test_from_scratch_one_cycle_has_its_own_rise() -> None:
    params = {"backbone": "test_resnet", "pretrained": False}
    recipe = known_recipe(params, IMAGES)
    assert (recipe["schedule.name"], recipe["schedule.warmup_epochs"]) == ("one_cycle", 0.0)
    assert known_recipe({**params, "schedule.name": "cosine"}, IMAGES)[
        "schedule.warmup_epochs"
    ] == pytest.approx(1.0)


def test_a_classifier_that_is_fitted_needs_no_recipe() -> None:
    assert known_recipe({"head.kind": "random_forest"}, IMAGES) == {}


@pytest.mark.parametrize("images", [1, 30, 10**6])
@pytest.mark.parametrize("epochs", [1, 2, 300])
def test_every_result_is_valid(images: int, epochs: int) -> None:
    for backbone in ("test_resnet", "test_vit", "convnext_atto", "small_car_cnn"):
        for pretrained in (True, False):
            params = {"backbone": backbone, "pretrained": pretrained, "epochs": epochs}
            build_config({**known_recipe(params, images), **params})


def test_what_cannot_be_is_refused_as_ever() -> None:
    with pytest.raises(ConfigError, match=r"unknown parameter 'optimizer\.rate'"):
        known_recipe({"optimizer.rate": 1}, IMAGES)
    with pytest.raises(ConfigError, match="unknown backbone 'resnet51'"):
        known_recipe({"backbone": "resnet51"}, IMAGES)


@pytest.mark.parametrize("name", ["adafactor", "radam", "lookahead_adamw"])
def test_an_optimizer_without_a_known_rate_asks_for_one(name: str) -> None:
    params: dict[str, Any] = {"backbone": "test_resnet", "optimizer.name": name}
    with pytest.raises(ConfigError, match=rf"no learning rate is known .*{name}': give opt"):
        complete_config(params, IMAGES)
    assert complete_config({**params, "optimizer.lr": 0.1}, IMAGES).optimizer.lr == 0.1


def test_parameters_are_counted_without_the_classifier() -> None:
    assert count_parameters("resnet18") == 11_176_512
