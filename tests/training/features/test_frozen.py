"""A frozen backbone's features: the same scores as without them, computed once, kept in bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from carray import metrics
from carray.data.pixels.loader import Images, ViewPlan
from carray.models.classifier import Classifier
from carray.records import TrialFolder
from tests.training.orders import new_runner, order_of, run, small_config

PLAIN = {"augment__strength": 0.0, "augment__flip": False, "epochs": 3}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect how many images the backbone is run on, real ones only."""
    seen: list[int] = []
    features = Classifier.features

    def counted(self: Classifier, images: torch.Tensor) -> torch.Tensor:
        if images.device.type != "meta":
            seen.append(len(images))
        return features(self, images)

    monkeypatch.setattr(Classifier, "features", counted)
    return seen


@pytest.mark.parametrize("head", ["linear", "ml_decoder"])
@pytest.mark.parametrize("policy", ["head_only", "unfreeze_at"])
def test_scores_are_those_of_running_the_backbone(
    tmp_path: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch, policy: str, head: str
) -> None:
    if head == "ml_decoder":  # measured statistics of a random net magnify float16's rounding
        monkeypatch.setattr(
            "carray.training.runner.recompute_batch_norm_statistics", lambda *_: None
        )
    common: dict[str, Any] = {
        **PLAIN,
        "finetune__policy": policy,
        "head__kind": head,
        "head__decoder_width": 32,
        "ema_decay": 0.9,
        "dropout": 0.3,
    }
    seed = 11 if head == "linear" else 12  # of backbones that no other test has stored
    stored, ran = (
        small_config(**common, finetune__feature_views=views, seed=seed) for views in (1, 0)
    )
    first = run(new_runner(), tmp_path / "a", toy_data, stored)
    second = run(new_runner(), tmp_path / "b", toy_data, ran)
    close = 2e-3 if head == "ml_decoder" else 1e-4  # maps are kept in float16
    for a, b in zip(first, second, strict=True):
        assert a[metrics.TRAIN_LOSS] == pytest.approx(b[metrics.TRAIN_LOSS], abs=close)
        assert a[metrics.VAL_LOG_LOSS] == pytest.approx(b[metrics.VAL_LOG_LOSS], abs=close)
    finished = []
    for name, config in (("a", stored), ("b", ran)):
        new_runner().finish(order_of(tmp_path / name, toy_data, config, 3, trial=name))
        finished.append(TrialFolder(tmp_path / name).logits("test").astype(np.float32))
    assert finished[0] == pytest.approx(finished[1], abs=0.02)


def test_the_second_trial_never_runs_the_backbone(
    tmp_path: Path, toy_data: Path, passes: list[int]
) -> None:
    config = small_config(
        epochs=5, seed=21, finetune__policy="head_only", finetune__feature_views=2
    )
    run(new_runner(), tmp_path / "a", toy_data, config)
    first = sum(passes)
    other = config.model_copy(
        update={"optimizer": config.optimizer.model_copy(update={"lr": 0.1}), "dropout": 0.4}
    )
    run(new_runner(), tmp_path / "b", toy_data, other)
    new_runner().finish(order_of(tmp_path / "b", toy_data, other, 5, trial="b"))
    held = sum(passes) - first  # the test split, which only the end looks at
    assert held == len(TrialFolder(tmp_path / "b").logits("test"))
    new_runner().finish(order_of(tmp_path / "a", toy_data, config, 5, trial="a"))
    assert sum(passes) == first + held


def test_two_views_are_computed_and_taken_in_turn(
    tmp_path: Path, toy_data: Path, passes: list[int]
) -> None:
    config = small_config(
        epochs=4, seed=31, finetune__policy="head_only", finetune__feature_views=2
    )
    runner = new_runner()
    run(runner, tmp_path, toy_data, config, 1)
    one = sum(passes)
    run(runner, tmp_path, toy_data, config, 2)
    two = sum(passes)
    run(runner, tmp_path, toy_data, config, 3, 4)
    assert one > two - one > 0
    assert sum(passes) == two


def test_mixed_images_have_no_stored_features(
    tmp_path: Path, toy_data: Path, passes: list[int]
) -> None:
    config = small_config(
        epochs=2, seed=41, finetune__policy="head_only", augment__mixup=0.4, fit="pad"
    )
    run(new_runner(), tmp_path, toy_data, config, 1)
    one = sum(passes)
    run(new_runner(), tmp_path, toy_data, config, 2)
    assert sum(passes) > one


def test_a_killed_trial_goes_on_from_its_heads_checkpoint(tmp_path: Path, toy_data: Path) -> None:
    config = small_config(epochs=3, seed=21, finetune__policy="head_only", ema_decay=0.9)
    whole = run(new_runner(), tmp_path / "a", toy_data, config)
    run(new_runner(), tmp_path / "b", toy_data, config, 1)
    torn = run(new_runner(), tmp_path / "b", toy_data, config, 2, 3)
    assert torn == [pytest.approx(row, abs=1e-5) for row in whole[1:]]


def test_a_view_depends_on_the_row_and_its_number_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (9, 40, 40, 3), np.uint8)
    augment = small_config(augment__strength=0.8).augment
    images = Images(pixels, np.arange(9))

    def seen(rows: list[int], view: int) -> torch.Tensor:
        plan = ViewPlan(images, np.array(rows), len(rows), 32, augment, view, on_device=False)
        return plan.make(0).images

    assert torch.equal(seen([2, 5, 7], 1)[1], seen([5], 1)[0])
    assert not torch.equal(seen([5], 1), seen([5], 2))
    assert torch.equal(seen([5], 0), seen([4, 5], 0)[1:])
