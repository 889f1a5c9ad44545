"""MixUp and CutMix: images, targets, and how often."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from carray.config import AugmentConfig
from carray.data.pixels.mixup import MixParams, mix_images, mix_targets, sample_mix


def drawn(augment: AugmentConfig, count: int = 2000) -> list[MixParams | None]:
    numbers = np.random.default_rng(0)
    return [sample_mix(augment, 64, numbers) for _ in range(count)]


def test_nothing_is_mixed_when_both_are_off() -> None:
    assert set(drawn(AugmentConfig(), 50)) == {None}


def test_the_share_of_mixed_batches_is_mix_prob() -> None:
    mixes = drawn(AugmentConfig(mixup=0.2, mix_prob=0.3))
    assert sum(mix is not None for mix in mixes) / len(mixes) == pytest.approx(0.3, abs=0.03)


def test_with_both_each_is_drawn_half_of_the_time() -> None:
    mixes = [mix for mix in drawn(AugmentConfig(mixup=0.2, cutmix=1.0)) if mix]
    assert np.mean([mix.box is None for mix in mixes]) == pytest.approx(0.5, abs=0.04)


def test_mixup_weighs_pixels_and_targets_alike() -> None:
    images = torch.zeros(4, 3, 8, 8)
    images[0], images[3] = 10.0, 20.0
    mixed = mix_images(images, MixParams(0.7))
    targets = mix_targets(torch.tensor([0, 1, 1, 2]), 3, MixParams(0.7))
    assert mixed[0].unique().tolist() == pytest.approx([13.0])
    assert targets[0].tolist() == pytest.approx([0.7, 0.0, 0.3])
    assert targets[1].tolist() == pytest.approx([0.0, 1.0, 0.0])


def test_cutmix_targets_weigh_the_pixels_that_are_there() -> None:
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 64, 64).clone()
    for mix in drawn(AugmentConfig(cutmix=1.0), 40):
        assert mix is not None
        own = (mix_images(images, mix)[0] == images[0]).float().mean()
        assert float(own) == pytest.approx(mix.share, abs=1e-6)
        assert float(images[1].mean()) == 1.0


def test_targets_sum_to_one() -> None:
    targets = mix_targets(torch.tensor([0, 3, 2]), 5, MixParams(0.35))
    assert targets.sum(1).tolist() == pytest.approx([1, 1, 1])
