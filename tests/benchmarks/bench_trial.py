"""Epochs an hour of one trial: carray's epoch loop against timm's own way of training.

    python tests/benchmarks/bench_trial.py [DATA] [--backbone mobilenetv2_100] [--size 128]

DATA is a prepared data set (`carray data prepare`); toy cars where none is given.
timm's side follows its published `train.py`: `create_dataset`, `create_loader` with worker
processes, `create_optimizer_v2`, per-update cosine, then its validation; same model, batch size,
class of augmentation, and as many threads. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
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
from carray.metrics import DATA_WAIT
from carray.training.orders import EpochOrder
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        manifest = Manifest.load(asked.data or toy_data(Path(folder) / "toys"))
        ours = Ours(manifest, Path(folder), asked.backbone, asked.size, asked.threads)
        theirs = Theirs(manifest, asked.backbone, asked.size, asked.threads)
        ours.epoch()
        theirs.epoch()
        pairs = [(seconds_of(ours), seconds_of(theirs)) for _ in range(asked.rounds)]
    print(f"{asked.backbone}, {asked.size} px, batch {BATCH}, {asked.threads} threads")
    print(f"epoch with validation, s      carray {[f'{a:.1f}' for a, _ in pairs]}")
    print(f"                              timm   {[f'{b:.1f}' for _, b in pairs]}")
    ratio = statistics.median(b / a for a, b in pairs)
    best = statistics.median(a for a, _ in pairs)
    print(f"epochs an hour: {3600 / best:.0f}, x{ratio:.2f}; input wait {100 * ours.wait:.2f} %")


def seconds_of(side: Ours | Theirs) -> float:
    start = time.perf_counter()
    side.epoch()
    return time.perf_counter() - start


class Ours:
    """One trial through the runner, as a lane runs it."""

    def __init__(self, manifest: Manifest, folder: Path, backbone: str, size: int, threads: int):
        config = build_config(
            {
                "backbone": backbone,
                "pretrained": False,
                "image_size": size,
                "device_batch_size": BATCH,
                "epochs": 50,
            }
        )
        self._order = EpochOrder(
            trial="bench/0", folder=str(folder), data=str(manifest.folder), config=config, epoch=1
        )
        self._runner = TrialRunner(SoloRanks(), torch.device("cpu"), threads)
        self.wait = 0.0

    def epoch(self) -> None:
        outcome = self._runner.run_epoch(self._order)
        self.wait = outcome.metrics[DATA_WAIT]
        self._order = self._order.model_copy(update={"epoch": self._order.epoch + 1})


class Theirs:
    """timm's `train.py`, its parts in its order."""

    def __init__(self, manifest: Manifest, backbone: str, size: int, threads: int) -> None:
        train, val = (_files(manifest, split) for split in ("train", "val"))
        shared = {"input_size": (3, size, size), "use_prefetcher": False, "num_workers": threads}
        shared |= {"device": torch.device("cpu"), "persistent_workers": True}
        self._train = create_loader(
            train, batch_size=BATCH, is_training=True, color_jitter=0.4, **shared
        )
        self._val = create_loader(val, batch_size=2 * BATCH, is_training=False, **shared)
        self._model = timm.create_model(backbone, num_classes=len(manifest.classes))
        self._classes = len(manifest.classes)
        self._optimizer = create_optimizer_v2(self._model, opt="adamw", lr=1e-3)
        self._scheduler, _ = create_scheduler_v2(
            self._optimizer, num_epochs=50, step_on_epochs=False, updates_per_epoch=len(self._train)
        )
        self._loss = SoftTargetCrossEntropy()
        self._updates = 0

    def epoch(self) -> None:
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


def _files(manifest: Manifest, split: str) -> ImageDataset:
    rows = manifest.included.iloc[manifest.rows(split)]
    dataset = ImageDataset(str(Path(rows["path"].iloc[0]).parents[1]))
    labels = rows["class_index"].to_list()
    dataset.reader.samples = list(zip(rows["path"].to_list(), labels, strict=True))
    return dataset


if __name__ == "__main__":
    main()
