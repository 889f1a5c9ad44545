"""Batches from the pixel store, made ahead by threads: no worker processes, no surprises.

OpenCV, NumPy's copies and torch's kernels all free the GIL, so a thread in this process beats
loader processes. What is in a batch depends on (seed, epoch, rank, its number) alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, Protocol, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from carray.config import AugmentConfig
from carray.data.pixels.augment_ranges import ranges_of
from carray.data.pixels.augmentation import (
    WHOLE,
    AugmentParams,
    View,
    concat,
    identity_params,
    sample_params,
)
from carray.data.pixels.augmentation_backends import apply_opencv, apply_torch
from carray.data.pixels.mixup import MixParams, sample_mix
from carray.data.pixels.own_transform import load_transform
from carray.errors import DataError, counted
from carray.typing import AnyFloats, Rows

BATCHES_AHEAD = 3
_SHUFFLE, _AUGMENT, _VIEW = 1, 2, 3  # keep the streams of random numbers apart

T = TypeVar("T", covariant=True)


@dataclass(frozen=True)
class Images:
    """Pixels of the store and the labels of its rows, as one rank sees them."""

    pixels: npt.NDArray[np.uint8]
    """(N, side, side, 3) RGB, memory-mapped."""
    labels: Rows
    """(N,) class indices."""
    boxes: AnyFloats | None = None
    """(N, 4) as shares of the side, NaN where an image has none: `known_boxes.square_boxes`."""

    @property
    def side(self) -> int:
        """Side of the stored squares, in pixels."""
        return int(self.pixels.shape[1])


@dataclass(frozen=True)
class Batch:
    """Uint8 images on the CPU, and what is still to be done to them on the device."""

    images: Tensor
    """(B, side, side, 3)."""
    labels: Tensor
    """(B,) int64."""
    side: int
    """Side that the backbone sees."""
    params: AugmentParams | None
    """Drawn augmentation, None where it has been applied."""
    mix: MixParams | None = None

    def __len__(self) -> int:
        return len(self.labels)


class BatchPlan(Protocol[T]):
    """Makes batch number i from nothing but i."""

    def __len__(self) -> int: ...

    def make(self, index: int) -> T:
        """Return batch `index`."""


def _drawn(
    augment: AugmentConfig, images: Images, rows: Rows, side: int, rng: np.random.Generator
) -> AugmentParams:
    row, flip, blur = ranges_of(augment), augment.flip, augment.blur
    kept = images.boxes[rows] if augment.crop_keeps_box and images.boxes is not None else None
    return sample_params(row, flip, len(rows), images.side, side, rng, blur, kept)


@dataclass(frozen=True)
class TrainPlan:
    """One rank's share of one epoch: shuffled, cut to equal steps on all ranks, augmented."""

    images: Images
    rows: Rows
    """This rank's rows in the epoch's order."""
    batch_size: int
    image_size: int
    augment: AugmentConfig
    seeds: tuple[int, int, int]
    """(seed, epoch, rank)."""
    mixes: bool
    on_device: bool
    """Whether the augmentation is left to the device; never where a transform comes after it."""

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size

    def make(self, index: int) -> Batch:
        """Return batch `index`, augmented or with its augmentation drawn."""
        rows = self.rows[index * self.batch_size :][: self.batch_size]
        rng = np.random.default_rng((*self.seeds, _AUGMENT, index))
        params = _drawn(self.augment, self.images, rows, self.image_size, rng)
        mix = sample_mix(self.augment, self.image_size, rng) if self.mixes else None
        batch = _batch(self.images, rows, params, self.image_size, self.on_device, mix)
        if not self.augment.transform:
            return batch
        seed, own = int(rng.integers(2**31)), load_transform(self.augment.transform)
        return replace(batch, images=torch.from_numpy(own(batch.images.numpy(), seed)))


@dataclass(frozen=True)
class ViewPlan:
    """One numbered view of each image: 0 is the whole image, the others are augmented draws.

    A view depends on the image's row and its number alone, so that trials can share it.
    """

    images: Images
    rows: Rows
    batch_size: int
    image_size: int
    augment: AugmentConfig
    view: int
    on_device: bool

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def make(self, index: int) -> Batch:
        """Return batch `index`."""
        rows = self.rows[index * self.batch_size :][: self.batch_size]
        params = identity_params(len(rows), self.images.side, self.image_size)
        if self.view:
            params = concat([self._drawn(rows[[place]]) for place in range(len(rows))])
        return _batch(self.images, rows, params, self.image_size, self.on_device, None)

    def _drawn(self, row: Rows) -> AugmentParams:
        rng = np.random.default_rng((self.view, int(row[0]), _VIEW))
        return _drawn(self.augment, self.images, row, self.image_size, rng)


@dataclass(frozen=True)
class EvalPlan:
    """One view of each image, in the order of `rows`; the last batch may be smaller."""

    images: Images
    rows: Rows
    batch_size: int
    image_size: int
    on_device: bool
    view: View = WHOLE

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def make(self, index: int) -> Batch:
        """Return batch `index`."""
        rows = self.rows[index * self.batch_size :][: self.batch_size]
        params = identity_params(len(rows), self.images.side, self.image_size, self.view)
        return _batch(self.images, rows, params, self.image_size, self.on_device, None)


def _batch(
    images: Images,
    rows: Rows,
    params: AugmentParams,
    image_size: int,
    on_device: bool,
    mix: MixParams | None,
) -> Batch:
    labels = torch.from_numpy(images.labels[rows])
    if on_device:
        pinned = torch.cuda.is_available()  # a copy from pinned memory waits for nobody
        shape = len(rows), *images.pixels.shape[1:]
        raw = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        labels = labels.pin_memory() if pinned else labels
        np.take(images.pixels, rows, axis=0, out=raw.numpy(), mode="clip")
        return Batch(raw, labels, image_size, params, mix)
    done = apply_opencv([images.pixels[row] for row in rows], params, image_size)
    return Batch(torch.from_numpy(done), labels, image_size, None, mix)


def to_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images (B, 3, side, side) in [0, 255], and labels; `Arithmetic.normalise` is next.

    Images are uint8 and channels last, or float32 where the device has augmented them.
    """
    raw = batch.images.to(device, non_blocking=True)
    labels = batch.labels.to(device, non_blocking=True)
    if batch.params is not None:
        return apply_torch(raw, batch.params, batch.side), labels
    return raw.permute(0, 3, 1, 2), labels


def train_rows(
    rows: Rows,
    seed: int,
    epoch: int,
    rank: int,
    world_size: int,
    batch_size: int,
    odds: AnyFloats | None = None,
) -> tuple[Rows, int]:
    """Return this rank's rows of one epoch, and its batch size.

    The permutation is the same on all ranks; each takes every `world_size`-th row. All ranks do
    equally many full steps: the rest of the permutation is left out, another rest each epoch. A
    data set smaller than one global batch is one batch. With `odds`, one a row, as many rows are
    drawn by them, with repeats, in place of the permutation.

    Raises:
        DataError: there are fewer images than ranks.
    """
    if len(rows) < world_size:
        raise DataError(
            f"{counted(len(rows), 'training image')} can't be split over {world_size} ranks; use "
            "fewer ranks"
        )
    rng = np.random.default_rng((seed, epoch, 0, _SHUFFLE))
    if odds is None:
        order = rng.permutation(rows)
    else:
        order = rng.choice(rows, len(rows), p=odds / odds.sum())
    share = len(rows) // world_size
    size = min(batch_size, share)
    return order[rank::world_size][: share // size * size], size


@dataclass
class Loader(Generic[T]):
    """Iterates over a plan's batches, made ahead by `num_threads`; always in the plan's order.

    Without threads each batch is made when it is asked for.
    """

    plan: BatchPlan[T]
    num_threads: int = 1
    ahead: int = BATCHES_AHEAD
    wait_seconds: float = field(default=0.0, init=False)
    """Time that the consumer has waited for batches, the first included."""

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[T]:
        cv2.setNumThreads(1)  # its own pool would fight torch's for the cores
        self.wait_seconds = 0.0
        if self.num_threads == 0:
            for index in range(len(self.plan)):
                yield self._waited(partial(self.plan.make, index))
            return
        pool = ThreadPoolExecutor(self.num_threads, thread_name_prefix="loader")
        try:
            yield from self._ordered(pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _ordered(self, pool: ThreadPoolExecutor) -> Iterator[T]:
        total, depth = len(self.plan), self.ahead + self.num_threads - 1
        waiting: deque[Future[T]] = deque(
            pool.submit(self.plan.make, index) for index in range(min(depth, total))
        )
        for following in range(depth, total + depth):
            if not waiting:
                return
            batch = self._waited(waiting.popleft().result)
            if following < total:
                waiting.append(pool.submit(self.plan.make, following))
            yield batch

    def _waited(self, batch: Callable[[], T]) -> T:
        start = time.perf_counter()
        made = batch()
        self.wait_seconds += time.perf_counter() - start
        return made
