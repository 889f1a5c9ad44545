"""Small trials on the toy cars, for the tests of this room."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from carray import metrics
from carray.config import TrialConfig, build_config
from carray.training.epoch_order import EpochOrder
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner

SMALL = {
    "backbone": "test_resnet",
    "pretrained": False,
    "image_size": 32,
    "device_batch_size": 16,
    "epochs": 3,
    "optimizer.lr": 3e-3,
}
TIMES = (  # they differ from run to run
    metrics.IMAGES_PER_SECOND,
    metrics.EPOCH_SECONDS,
    metrics.DATA_WAIT,
    metrics.PEAK_MEMORY_GIB,
)


def small_config(**changes: Any) -> TrialConfig:
    """Return a trial of seconds; `__` stands for a dot."""
    return build_config(SMALL | {name.replace("__", "."): v for name, v in changes.items()})


def new_runner(on_batch: Callable[[int], None] | None = None) -> TrialRunner:
    """Return a runner as a fresh lane has it."""
    return TrialRunner(SoloRanks(), torch.device("cpu"), num_threads=1, on_batch=on_batch)


def order_of(
    folder: Path, data: Path, config: TrialConfig, epoch: int = 1, trial: str = "study/0001"
) -> EpochOrder:
    """Return an order for one epoch."""
    return EpochOrder(trial=trial, folder=str(folder), data=str(data), config=config, epoch=epoch)


def scores_of(row: dict[str, float]) -> dict[str, float]:
    """Return what must repeat."""
    return {name: value for name, value in row.items() if name not in TIMES}


def run(
    runner: TrialRunner, folder: Path, data: Path, config: TrialConfig, *epochs: int
) -> list[dict[str, float]]:
    """Run `epochs` (all of them where none is named) and return their scores."""
    numbers = epochs or tuple(range(1, config.epochs + 1))
    orders = (order_of(folder, data, config, epoch, trial=folder.name) for epoch in numbers)
    return [scores_of(runner.run_epoch(order).metrics) for order in orders]


@contextmanager
def little_memory() -> Iterator[None]:
    """Leave this process 300 MiB of address space above what it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    has = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (has + 300 * 2**20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
