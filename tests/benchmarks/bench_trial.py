"""Images a second of one trial, end to end: carray's epoch loop against timm's way of training.

    python tests/benchmarks/bench_trial.py [--photos DIR] [--weights DIR] [--threads 1 2]
    python tests/benchmarks/bench_trial.py --device cuda [--images 12000] [--profile]

--photos is a folder of images by class, or one that `carray prepare` has made, toy cars where none
is given; --weights a folder of pretrained weights by backbone, random ones where none is given.
What is trained is written BACKBONE@PIXELS. timm's side follows its published `train.py`:
`create_dataset`, `create_loader` with worker processes, `create_optimizer_v2`, per-update cosine,
then its validation; same model, batch size, class of augmentation, and as many threads. On a GPU it
has its prefetcher, pinned memory, bf16 autocast, channels last and cuDNN's benchmark mode. Each
side has a process to itself; rounds are interleaved.

Images a second are those of training; the ratio is of whole epochs, with validation and
checkpoint. "Of the limit" is carray's training against the arithmetic alone: the step's operations
as torch counts them, at the rate at which the device multiplies large matrices (bf16 on a GPU,
float32 on a CPU). --profile tells, after each line, where an epoch of ours spends its time. How our
steps run the probe decides, for a trial of --epochs, or --steps: one by one (`eager`), captured as
CUDA graphs (`graphs`), or compiled as well (`compiled`, a minute or so before the first).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

import timm
import torch
from limits import most_images_per_second
from timm.data import ImageDataset, create_loader
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from carray.api import toy_data
from carray.config import Compute, build_config
from carray.data.manifest import MANIFEST_FILE, Manifest
from carray.data.preparation.prepare import prepare
from carray.metrics import DATA_WAIT, IMAGES_PER_SECOND
from carray.training.epoch_order import EpochOrder
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner

CLASSES = 12  # of the toy cars
SHOWN = 15  # lines of a profile
MODELS = {
    "cpu": ["mobilenetv2_035@128", "mobilenetv2_100@128"],
    "cuda": ["resnet50@224", "convnext_base@384"],
}
BATCH = {"cpu": 32, "cuda": 128}
EAGER = Compute(precision="bf16", channels_last=True)
STEPS = {
    "eager": EAGER,
    "graphs": EAGER.model_copy(update={"graphs": True}),
    "compiled": EAGER.model_copy(update={"compiled": True, "graphs": True}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--images", type=int, default=720, help="toy cars, where no photos")
    parser.add_argument("--device", choices=list(MODELS), default="cpu")
    parser.add_argument("--models", nargs="+", type=sized, help="BACKBONE@PIXELS")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--epochs", type=int, default=50, help="so long is the trial to the probe")
    parser.add_argument(
        "--threads", type=int, nargs="+", help="1 and 2; beside a GPU all there are"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", choices=list(STEPS))
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here")
    if asked.device == "cpu" and asked.steps:
        parser.error("--steps is for --device cuda")
    threads = asked.threads or ([1, 2] if asked.device == "cpu" else [os.cpu_count() or 1])
    batch = asked.batch or BATCH[asked.device]
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        each = -(-asked.images // CLASSES)
        data = prepared(asked.photos, here) if asked.photos else toy_data(here, each)
        print(f"on {device_name(asked.device)}, batch {batch}; {asked.rounds} rounds")
        print(f"{'model':22s} threads  carray img/s  timm img/s  epochs  input wait  of the limit")
        models = asked.models or [sized(text) for text in MODELS[asked.device]]
        for (backbone, size), count in product(models, threads):
            case = Case(
                data=data,
                scratch=here,
                weights=asked.weights,
                backbone=backbone,
                size=size,
                threads=count,
                device=asked.device,
                batch=batch,
                epochs=asked.epochs,
                compute=STEPS.get(asked.steps),
            )
            for line in lines_of(case, asked.rounds, asked.profile):
                print(line, flush=True)


@dataclass(frozen=True)
class Case:
    """What both sides train."""

    data: Path
    scratch: Path
    weights: Path | None
    backbone: str
    size: int
    threads: int
    device: str
    batch: int
    epochs: int
    compute: Compute | None
    """How our steps run; None: as the probe finds."""


@dataclass(frozen=True)
class Epoch:
    """What one epoch was."""

    seconds: float
    """Of all of it."""
    images_per_second: float
    """Of training."""
    input_wait: float = 0.0
    """Share of training spent waiting for input."""


def prepared(photos: Path, scratch: Path) -> Path:
    """Return `photos` as a data set: prepared already, or here and now."""
    if (photos / MANIFEST_FILE).exists():
        return photos
    return prepare(photos, scratch / "data").folder


def sized(text: str) -> tuple[str, int]:
    """Read BACKBONE@PIXELS."""
    backbone, _, size = text.partition("@")
    if not size.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} must be BACKBONE@PIXELS, as resnet50@224")
    return backbone, int(size)


def device_name(device: str) -> str:
    """Return what the device calls itself."""
    return torch.cuda.get_device_name() if device == "cuda" else "the CPU"


def lines_of(case: Case, rounds: int, profiled: bool) -> Iterator[str]:
    """Yield one line of the table: medians, and the median of the rounds' ratios; a profile."""
    spawn = get_context("spawn")
    with (
        ProcessPoolExecutor(1, spawn, start, (Ours, case)) as ours,
        ProcessPoolExecutor(1, spawn, start, (Theirs, case)) as theirs,
    ):
        both = ours, theirs
        first = [started.result() for started in [side.submit(next_epoch) for side in both]]
        told = " and ".join(f"{epoch.seconds:.0f} s" for epoch in first)
        print(f"{case.backbone}@{case.size}: first epochs took {told}", file=sys.stderr)
        pairs = [[side.submit(next_epoch).result() for side in both] for _ in range(rounds)]
        limit = ours.submit(most_images_per_second, case.backbone, case.size, case.device).result()
        yield row_of(case, pairs, limit)
        if profiled:
            yield from ours.submit(profiled_epoch, case.device).result()


def row_of(case: Case, pairs: list[list[Epoch]], limit: float) -> str:
    """Return the line of the rounds' epochs, ours and theirs."""
    speeds = [statistics.median(pair[side].images_per_second for pair in pairs) for side in (0, 1)]
    ratio = statistics.median(pair[1].seconds / pair[0].seconds for pair in pairs)
    wait = statistics.median(pair[0].input_wait for pair in pairs)
    return (
        f"{f'{case.backbone}@{case.size}':22s} {case.threads:7d} {speeds[0]:13,.1f} "
        f"{speeds[1]:11,.1f} {f'x{ratio:.2f}':>7s} {100 * wait:9.2f} % {speeds[0] / limit:13.1%}"
    )


SIDE: list[Ours | Theirs] = []  # of this process


def start(kind: type[Ours] | type[Theirs], case: Case) -> None:
    """Make this process one side of the comparison."""
    set_start_method("fork", force=True)  # as in a program of its own; spawned loaders start slowly
    torch.set_num_threads(case.threads)
    SIDE.append(kind(case))


def next_epoch() -> Epoch:
    """Run this process's next epoch."""
    return SIDE[0].epoch()


def profiled_epoch(device: str) -> list[str]:
    """Run one more epoch; return which operations took how much of it, the longest first."""
    on_gpu = device == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=kinds) as found:
        SIDE[0].epoch()
    rows = found.key_averages()

    def own_us(row: Any) -> float:
        return float(row.self_device_time_total if on_gpu else row.self_cpu_time_total)

    total = sum(map(own_us, rows))
    longest = sorted(rows, key=own_us, reverse=True)[:SHOWN]
    return [
        f"  {us / total:6.1%} {us / 1000:10,.1f} ms {row.count:8,d} x {row.key[:60]}"
        for row, us in zip(longest, map(own_us, longest), strict=True)
    ]


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
                "device_batch_size": case.batch,
                "epochs": case.epochs,
            }
        )
        folder = case.scratch / f"trial-{case.backbone}-{case.size}-{case.threads}"
        self._order = EpochOrder(
            trial="bench/0",
            folder=str(folder),
            data=str(case.data),
            config=config,
            epoch=1,
            compute=case.compute,
        )
        self._runner = TrialRunner(SoloRanks(), torch.device(case.device), case.threads)

    def epoch(self) -> Epoch:
        began = time.perf_counter()
        metrics = self._runner.run_epoch(self._order).metrics
        seconds = time.perf_counter() - began
        self._order = self._order.model_copy(update={"epoch": self._order.epoch + 1})
        return Epoch(seconds, metrics[IMAGES_PER_SECOND], metrics[DATA_WAIT])


class Theirs:
    """timm's `train.py`, its parts in its order."""

    def __init__(self, case: Case) -> None:
        manifest = Manifest.load(case.data)
        train, val = (files_of(manifest, split) for split in ("train", "val"))
        self._device = torch.device(case.device)
        on_gpu = case.device == "cuda"
        torch.backends.cudnn.benchmark = on_gpu
        shared = {
            "input_size": (3, case.size, case.size),
            "use_prefetcher": on_gpu,
            "pin_memory": on_gpu,
            "num_workers": case.threads,
            "device": self._device,
            "persistent_workers": True,
        }
        self._train = create_loader(
            train, batch_size=case.batch, is_training=True, color_jitter=0.4, **shared
        )
        self._val = create_loader(val, batch_size=2 * case.batch, is_training=False, **shared)
        self._classes = len(manifest.classes)
        local = {}
        if case.weights:
            file = str(case.weights / f"{case.backbone}.safetensors")
            local = {"pretrained": True, "pretrained_cfg_overlay": {"file": file}}
        model = timm.create_model(case.backbone, num_classes=self._classes, **local)
        self._layout = torch.channels_last if on_gpu else torch.contiguous_format
        self._model = model.to(self._device, memory_format=self._layout)
        self._optimizer = create_optimizer_v2(self._model, opt="adamw", lr=1e-3)
        self._scheduler, _ = create_scheduler_v2(
            self._optimizer,
            num_epochs=case.epochs,
            step_on_epochs=False,
            updates_per_epoch=len(self._train),
        )
        self._loss = SoftTargetCrossEntropy()
        self._updates = 0

    def epoch(self) -> Epoch:
        began = time.perf_counter()
        self._model.train()
        trained = 0
        for images, labels in self._train:
            with self._autocast():
                logits = self._model(images.contiguous(memory_format=self._layout))
                loss = self._loss(logits, F.one_hot(labels, self._classes).float())
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
            self._updates += 1
            self._scheduler.step_update(num_updates=self._updates)
            trained += len(images)
        self._wait()
        speed = trained / (time.perf_counter() - began)
        self._model.eval()
        with torch.inference_mode(), self._autocast():
            for images, labels in self._val:
                F.cross_entropy(self._model(images.contiguous(memory_format=self._layout)), labels)
        self._wait()
        return Epoch(time.perf_counter() - began, speed)

    def _autocast(self) -> AbstractContextManager[Any]:
        on_gpu = self._device.type == "cuda"
        return torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext()

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def files_of(manifest: Manifest, split: str) -> ImageDataset:
    """Return the files and labels of a split, as timm reads them."""
    rows = manifest.included.iloc[manifest.rows(split)]
    dataset = ImageDataset(str(Path(rows["path"].iloc[0]).parents[1]))
    labels = rows["class_index"].to_list()
    dataset.reader.samples = list(zip(rows["path"].to_list(), labels, strict=True))
    return dataset


if __name__ == "__main__":
    main()
