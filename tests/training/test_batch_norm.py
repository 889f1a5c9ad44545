"""Batch norms are judged by statistics of the weights as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from carray.config import ScheduleConfig
from carray.metrics import TRAIN_LOSS, VAL_LOG_LOSS
from carray.training.batch_norm import (
    MEASURED_LEAST,
    recompute_batch_norm_statistics,
    running_ones_trail,
)
from carray.training.dataset import open_data
from carray.training.ranks import SoloRanks
from carray.training.trial_state import LiveTrial, build_live, default_compute
from tests.training.orders import new_runner, run, small_config

CPU = torch.device("cpu")


def live_trial(data: Path, **changes: object) -> LiveTrial:
    config = small_config(backbone="lcnet_035", **changes)
    opened = open_data(str(data), config)
    live = build_live(
        "study/0001", config, opened, CPU, lambda built: default_compute(config, built, CPU)
    )
    live.classifier.train()
    return live


def test_statistics_are_those_of_the_measured_images(toy_data: Path) -> None:
    live = live_trial(toy_data, device_batch_size=12)
    seen: list[torch.Tensor] = []
    stem = live.classifier.backbone.conv_stem
    hook = stem.register_forward_hook(lambda module, inputs, output: seen.append(output))
    recompute_batch_norm_statistics(live, 1, 4, SoloRanks(), 1)
    hook.remove()
    images = min(MEASURED_LEAST, len(live.data.train))
    assert sum(map(len, seen)) == images
    assert images % 12  # the last batch is smaller, and counts for less
    norm = live.classifier.backbone.bn1
    assert torch.allclose(norm.running_mean, torch.cat(seen).mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, torch.cat(seen).var((0, 2, 3)), rtol=0.1)
    assert norm.momentum == pytest.approx(0.1)
    assert not live.classifier.training


def test_frozen_layers_keep_theirs(toy_data: Path) -> None:
    live = live_trial(toy_data)
    norm, other = live.classifier.backbone.bn1, live.classifier.backbone.blocks[0][0].bn1
    norm.eval()
    before, moving = norm.running_mean.clone(), other.running_mean.clone()
    recompute_batch_norm_statistics(live, 1, 4, SoloRanks(), 1)
    assert torch.equal(norm.running_mean, before)
    assert not torch.equal(other.running_mean, moving)


def test_statistics_that_trail_no_more_stay(toy_data: Path) -> None:
    live = live_trial(toy_data, epochs=4)
    assert [running_ones_trail(live.config, epoch, 30) for epoch in range(1, 5)] == [
        *(True, True, True, False)
    ]
    assert running_ones_trail(live.config, 4, 8), "few steps: some at a high rate are remembered"
    longer = live.config.continued(12)
    assert [running_ones_trail(longer, epoch, 30) for epoch in range(1, 5)] == [
        running_ones_trail(live.config, epoch, 30) for epoch in range(1, 5)
    ]
    assert running_ones_trail(longer, 5, 30), "it begins again at half the peak"
    assert not running_ones_trail(longer, 12, 30)
    warm = live.config.model_copy(update={"schedule": ScheduleConfig(warmup_epochs=2.0)})
    assert running_ones_trail(warm, 1, 30), "a low rate on the way up: of weights before the data"
    before = live.classifier.backbone.bn1.running_mean.clone()
    recompute_batch_norm_statistics(live, 4, 30, SoloRanks(), 1)
    assert torch.equal(live.classifier.backbone.bn1.running_mean, before)
    averaged = live_trial(toy_data, epochs=4, ema_decay=0.9)
    before = averaged.judged.backbone.bn1.running_mean.clone()
    recompute_batch_norm_statistics(averaged, 4, 30, SoloRanks(), 1)
    assert not torch.equal(averaged.judged.backbone.bn1.running_mean, before)


def test_an_average_of_weights_has_its_own(toy_data: Path) -> None:
    live = live_trial(toy_data, ema_decay=0.9)
    assert live.judged is not live.classifier
    before = live.classifier.backbone.bn1.running_mean.clone()
    recompute_batch_norm_statistics(live, 1, 4, SoloRanks(), 1)
    assert torch.equal(live.classifier.backbone.bn1.running_mean, before)
    assert not torch.equal(live.judged.backbone.bn1.running_mean, before)


def test_training_does_not_see_them(
    tmp_path: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(augment__strength=0.4, dropout=0.2)
    settled = run(new_runner(), tmp_path / "settled", toy_data, config)
    monkeypatch.setattr("carray.training.runner.recompute_batch_norm_statistics", lambda *_: None)
    trailing = run(new_runner(), tmp_path / "trailing", toy_data, config)
    assert [row[TRAIN_LOSS] for row in settled] == [row[TRAIN_LOSS] for row in trailing]
    assert settled[0][VAL_LOG_LOSS] != trailing[0][VAL_LOG_LOSS]
