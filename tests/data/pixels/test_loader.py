"""Batches: which rows, in which order, whoever makes them and however fast."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from carray.config import AugmentConfig
from carray.data.pixels.loader import (
    Batch,
    EvalPlan,
    Images,
    Loader,
    TrainPlan,
    to_device,
    train_rows,
)
from carray.errors import DataError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images() -> Images:
    numbers = np.random.default_rng(0)
    pixels = numbers.integers(0, 256, (50, 24, 24, 3), np.uint8)
    return Images(pixels, np.arange(50, dtype=np.int64) % 7)


def train_plan(images: Images, epoch: int = 1, **changes: object) -> TrainPlan:
    rows, size = train_rows(np.arange(50), 3, epoch, 0, 1, 8)
    augment = AugmentConfig(strength=0.6, mixup=0.4, cutmix=1.0)
    plan = TrainPlan(images, rows, size, 16, augment, (3, epoch, 0), True, False)
    return replace(plan, **changes)  # type: ignore[arg-type]


def test_rows_may_be_drawn_by_odds_the_same_on_all_ranks() -> None:
    rows, odds = np.arange(100), np.r_[np.full(90, 1.0), np.full(10, 9.0)]
    drawn = [train_rows(rows, 3, 1, rank, 2, 5, odds)[0] for rank in range(2)]
    rare = np.mean([np.mean(train_rows(rows, 3, e, 0, 1, 5, odds)[0] >= 90) for e in range(40)])
    assert rare == pytest.approx(0.5, abs=0.03)
    whole = train_rows(rows, 3, 1, 0, 1, 5, odds)[0]
    assert np.array_equal(np.sort(np.concatenate(drawn)), np.sort(whole))


def test_batches_do_not_depend_on_the_threads(images: Images) -> None:
    plan = train_plan(images)
    alone = [plan.make(index) for index in range(len(plan))]
    for num_threads in (0, 1, 4):
        batches = list(Loader(plan, num_threads))
        assert len(batches) == len(alone) == 6
        for ours, wanted in zip(batches, alone, strict=True):
            assert torch.equal(ours.images, wanted.images)
            assert torch.equal(ours.labels, wanted.labels)
            assert ours.mix == wanted.mix


def test_another_epoch_brings_other_images_and_other_augmentation(images: Images) -> None:
    first, second = train_plan(images, 1), train_plan(images, 2)
    assert not np.array_equal(first.rows, second.rows)
    same_rows = replace(second, rows=first.rows)
    assert not torch.equal(first.make(0).images, same_rows.make(0).images)


def test_labels_go_with_their_pixels(images: Images) -> None:
    plan = EvalPlan(images, np.array([7, 3, 49]), 2, 24, False)
    batches = list(Loader(plan))
    assert [len(batch) for batch in batches] == [2, 1]
    seen = torch.cat([to_device(batch, CPU)[0] for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    for row, image, label in zip((7, 3, 49), seen, labels, strict=True):
        assert torch.equal(image, torch.from_numpy(images.pixels[row]).permute(2, 0, 1))
        assert label == images.labels[row]


def test_augmentation_on_the_device_is_the_one_on_the_cpu(images: Images) -> None:
    calm = AugmentConfig(strength=0.0)
    here = train_plan(images, augment=calm, mixes=False).make(0)
    there = train_plan(images, augment=calm, mixes=False, on_device=True).make(0)
    assert here.params is None
    assert there.params is not None
    difference = (to_device(here, CPU)[0] - to_device(there, CPU)[0]).abs()
    assert float(difference.mean()) < 1.0


def test_images_come_as_bytes_channels_last(images: Images) -> None:
    pixels, _ = to_device(train_plan(images).make(0), CPU)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    assert pixels.dtype == torch.uint8


@given(
    num_images=st.integers(1, 60),
    world_size=st.integers(1, 5),
    batch_size=st.integers(1, 20),
    epoch=st.integers(1, 3),
)
def test_ranks_share_an_epoch_in_equal_steps_without_repeats(
    num_images: int, world_size: int, batch_size: int, epoch: int
) -> None:
    rows = np.arange(100, 100 + num_images)
    if num_images < world_size:
        with pytest.raises(DataError, match="fewer ranks"):
            train_rows(rows, 0, epoch, 0, world_size, batch_size)
        return
    shares = [train_rows(rows, 0, epoch, r, world_size, batch_size) for r in range(world_size)]
    lengths = {(len(mine), size) for mine, size in shares}
    assert len(lengths) == 1
    length, size = lengths.pop()
    assert length % size == 0
    assert length > 0
    together = np.concatenate([mine for mine, _ in shares])
    assert len(set(together.tolist())) == len(together)
    assert set(together.tolist()) <= set(rows.tolist())
    assert num_images - len(together) < world_size * size + world_size


def test_all_images_are_seen_over_the_epochs() -> None:
    seen: set[int] = set()
    for epoch in range(1, 12):
        seen |= set(train_rows(np.arange(10), 0, epoch, 0, 1, 8)[0].tolist())
    assert seen == set(range(10))
    assert gcd(10, 8) == 2


@dataclass(frozen=True)
class SlowPlan:
    """Five batches that take their time."""

    seconds: float
    fails_at: int = -1

    def __len__(self) -> int:
        return 5

    def make(self, index: int) -> int:
        time.sleep(self.seconds)
        if index == self.fails_at:
            raise ValueError("broken batch")
        return index


def test_waiting_is_measured() -> None:
    slow = Loader(SlowPlan(0.02))
    assert list(slow) == [0, 1, 2, 3, 4]
    assert 0.05 < slow.wait_seconds < 1.0
    fast = Loader(SlowPlan(0.0))
    for _ in fast:
        time.sleep(0.01)
    assert fast.wait_seconds < slow.wait_seconds / 2


def test_an_error_in_a_thread_reaches_the_consumer() -> None:
    def consume() -> Iterator[int]:
        yield from Loader(SlowPlan(0.0, fails_at=2), num_threads=2)

    with pytest.raises(ValueError, match="broken batch"):
        list(consume())


def test_leaving_early_stops_the_threads(images: Images) -> None:
    loader = Loader(train_plan(images), num_threads=2)
    batches = iter(loader)
    first = next(batches)
    assert isinstance(first, Batch)
    batches.close()  # type: ignore[attr-defined]
    assert next(batches, None) is None
