"""Epochs an hour of one trial: carray's epoch loop against timm's own way of training.

    python tests/benchmarks/bench_trial.py [--photos DIR] [--weights DIR] [--threads 1 2]

--photos is a folder of images by class, toy cars where none is given; --weights a folder of
pretrained weights by backbone, random ones where none is given. timm's side follows its published
`train.py`: `create_dataset`, `create_loader` with worker processes, `create_optimizer_v2`,
per-update cosine, then its validation; same model, batch size, class of augmentation, and as many
threads. Each side has a process to itself; rounds are interleaved.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import timm
import torch
from timm.data import ImageDataset, create_loader
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.nn import functional as F

from carray.api import toy_data
from carray.config import build_config
from carray.data.manifest import Manifest
from carray.data.prepare import prepare
from carray.metrics import DATA_WAIT
from carray.training.orders import EpochOrder
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--backbones", nargs="+", default=["mobilenetv2_035", "mobilenetv2_100"])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        data = prepare(asked.photos, here / "data") if asked.photos else toy_data(here / "toys")
        data = data if isinstance(data, Path) else data.folder
        print(f"{asked.size} px, batch {BATCH}, epochs with validation; {asked.rounds} rounds")
        print("backbone          threads   carray s   timm s   epochs an hour   ratio   input wait")
        for backbone, threads in product(asked.backbones, asked.threads):
            case = Case(data, asked.weights, backbone, asked.size, threads)
            print(row_of(case, asked.rounds), flush=True)


@dataclass(frozen=True)
class Case:
    """What both sides train."""

    data: Path
    weights: Path | None
    backbone: str
    size: int
    threads: int


def row_of(case: Case, rounds: int) -> str:
    """Return one line of the table: medians, and the median of the rounds' ratios."""
    spawn = get_context("spawn")
    with (
        ProcessPoolExecutor(1, spawn, start, (Ours, case)) as ours,
        ProcessPoolExecutor(1, spawn, start, (Theirs, case)) as theirs,
    ):
        both = ours, theirs
        for side in both:  # the first epoch warms up
            side.submit(timed_epoch).result()
        pairs = [[side.submit(timed_epoch).result() for side in both] for _ in range(rounds)]
    seconds = [statistics.median(pair[side][0] for pair in pairs) for side in (0, 1)]
    ratio = statistics.median(pair[1][0] / pair[0][0] for pair in pairs)
    wait = statistics.median(pair[0][1] for pair in pairs)
    return (
        f"{case.backbone:16s} {case.threads:8d} {seconds[0]:10.2f} {seconds[1]:8.2f} "
        f"{3600 / seconds[0]:16.0f} {f'x{ratio:.2f}':>7s} {100 * wait:10.2f} %"
    )


SIDE: list[Ours | Theirs] = []  # of this process


def start(kind: type[Ours] | type[Theirs], case: Case) -> None:
    """Make this process one side of the comparison."""
    torch.set_num_threads(case.threads)
    SIDE.append(kind(case))


def timed_epoch() -> tuple[float, float]:
    """Run this process's next epoch; return its seconds and the share spent waiting for input."""
    began = time.perf_counter()
    wait = SIDE[0].epoch()
    return time.perf_counter() - began, wait


class Ours:
    """One trial through the runner, as a lane runs it."""

    def __init__(self, case: Case) -> None:
        if case.weights:
            os.environ["CARRAY_WEIGHTS"] = str(case.weights.resolve())
        config = build_config(
            {
                "backbone": case.backbone,
                "pretrained": case.weights is not None,
                "image_size": case.size,
                "device_batch_size": BATCH,
                "epochs": 50,
            }
        )
        folder = case.data.parent / f"trial-{case.backbone}-{case.threads}"
        self._order = EpochOrder(
            trial="bench/0", folder=str(folder), data=str(case.data), config=config, epoch=1
        )
        self._runner = TrialRunner(SoloRanks(), torch.device("cpu"), case.threads)

    def epoch(self) -> float:
        outcome = self._runner.run_epoch(self._order)
        self._order = self._order.model_copy(update={"epoch": self._order.epoch + 1})
        return outcome.metrics[DATA_WAIT]


class Theirs:
    """timm's `train.py`, its parts in its order."""

    def __init__(self, case: Case) -> None:
        manifest = Manifest.load(case.data)
        train, val = (_files(manifest, split) for split in ("train", "val"))
        size, workers = case.size, case.threads
        shared = {"input_size": (3, size, size), "use_prefetcher": False, "num_workers": workers}
        shared |= {"device": torch.device("cpu"), "persistent_workers": True}
        self._train = create_loader(
            train, batch_size=BATCH, is_training=True, color_jitter=0.4, **shared
        )
        self._val = create_loader(val, batch_size=2 * BATCH, is_training=False, **shared)
        self._classes = len(manifest.classes)
        local = {}
        if case.weights:
            file = str(case.weights / f"{case.backbone}.safetensors")
            local = {"pretrained": True, "pretrained_cfg_overlay": {"file": file}}
        self._model = timm.create_model(case.backbone, num_classes=self._classes, **local)
        self._optimizer = create_optimizer_v2(self._model, opt="adamw", lr=1e-3)
        self._scheduler, _ = create_scheduler_v2(
            self._optimizer, num_epochs=50, step_on_epochs=False, updates_per_epoch=len(self._train)
        )
        self._loss = SoftTargetCrossEntropy()
        self._updates = 0

    def epoch(self) -> float:
        self._model.train()
        for images, labels in self._train:
            loss = self._loss(self._model(images), F.one_hot(labels, self._classes).float())
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
            self._updates += 1
            self._scheduler.step_update(num_updates=self._updates)
        self._model.eval()
        with torch.inference_mode():
            for images, labels in self._val:
                F.cross_entropy(self._model(images), labels)
        return 0.0


def _files(manifest: Manifest, split: str) -> ImageDataset:
    rows = manifest.included.iloc[manifest.rows(split)]
    dataset = ImageDataset(str(Path(rows["path"].iloc[0]).parents[1]))
    labels = rows["class_index"].to_list()
    dataset.reader.samples = list(zip(rows["path"].to_list(), labels, strict=True))
    return dataset


if __name__ == "__main__":
    main()
