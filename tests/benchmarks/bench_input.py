"""Images a second per core: carray's pixel store and loader against timm's `create_loader`.

    python tests/benchmarks/bench_input.py [--images 400] [--size 224] [--rounds 5]

Both read the same JPEGs (640 x 480, quality 90, toy cars enlarged); timm's loader decodes each
time, the store has decoded once before. One process; rounds are interleaved, ratios are of CPU
seconds. "Same augmentation" is what timm's default does: random resized crop, flip, brightness,
contrast and saturation. "The dial" adds rotation, shear, shift, tone and erasing. A batch that
a step can use is float32 and normalised. The second table shows what loader threads are good for
beside a consumer that only normalises: wall time, and what the machine spends on it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ImageDataset,
    create_loader,
)

from carray.config import Compute, InputSpec
from carray.data.augment import Dial, dial, draw
from carray.data.augment_apply import apply_opencv
from carray.data.loader import Batch, Images, Loader, Rows, to_device
from carray.data.prepare import prepare
from carray.data.store import open_store
from carray.data.toycars import render_toycars
from carray.training.heap import keep_freed_memory
from carray.training.live import arithmetic

BATCH = 32
REPEATS = 4  # passes over the images in one timing
CPU = torch.device("cpu")
TIMMS = replace(dial(1.0), hue=0.0, geometric_share=0.0, tone_share=0.0, erase_share=0.0)
SPEC = InputSpec(size=224, mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        photos = enlarged(Path(folder), asked.images)
        manifest = prepare(photos, Path(folder) / "data")
        start = time.process_time()
        store = open_store(manifest, asked.size, "squash")
        built = (time.process_time() - start) / len(manifest.included)
        images = Images(store.pixels, manifest.labels)
        rows = np.concatenate([manifest.rows("train")] * REPEATS)
        same = BenchPlan(images, rows, asked.size, TIMMS)
        whole = BenchPlan(images, rows, asked.size, dial(0.3))
        most = BenchPlan(images, rows, asked.size, dial(1.0))
        print(
            f"{asked.size} px, train augmentation; building the store: {1000 * built:.1f} ms an "
            f"image, once"
        )
        compare(
            {
                "timm create_loader, normalised": lambda: by_timm(photos, asked.size, False),
                "timm, its prefetcher, normalised": lambda: by_timm(photos, asked.size, True),
                "same augmentation, uint8": lambda: by_store(same, normalise=False),
                "same augmentation, normalised": lambda: by_store(same, normalise=True),
                "the dial at 0.3, uint8": lambda: by_store(whole, normalise=False),
                "the dial at 0.3, normalised": lambda: by_store(whole, normalise=True),
                "the dial at 1.0, uint8": lambda: by_store(most, normalise=False),
                "the dial at 1.0, normalised": lambda: by_store(most, normalise=True),
            },
            asked.rounds,
        )
        compare_threads(whole, asked.rounds)


def compare(ways: dict[str, Callable[[], int]], rounds: int) -> None:
    """Print images per CPU second of each way, and its ratio to the first."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            start = time.process_time()
            count = run()
            speeds[name].append(count / (time.process_time() - start))
    base = statistics.median(next(iter(speeds.values())))
    print("pipeline                          images/s per core (min, median, max)    ratio")
    for name, values in speeds.items():
        middle = statistics.median(values)
        spread = f"{min(values):10,.0f} {middle:10,.0f} {max(values):10,.0f}"
        print(f"{name:34s} {spread} {'':6s} x{middle / base:.1f}")


def compare_threads(plan: BenchPlan, rounds: int) -> None:
    """Print what loader threads do to wall time and to CPU time."""
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in (0, 1, 2)}
    for _ in range(rounds):
        for threads, values in found.items():
            wall, cpu = time.perf_counter(), time.process_time()
            count = by_store(plan, normalise=True, threads=threads)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            values.append((count / wall, 1e6 * cpu / count))
    print("loader threads, the dial at 0.3    images/s wall    CPU us an image")
    for threads, values in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{threads:14d} {wall:33,.0f} {cpu:18,.0f}")


@dataclass(frozen=True)
class BenchPlan:
    """Batches as `TrainPlan` makes them, of any dial."""

    images: Images
    rows: Rows
    size: int
    row: Dial

    def __len__(self) -> int:
        return len(self.rows) // BATCH

    def make(self, index: int) -> Batch:
        rows = self.rows[index * BATCH :][:BATCH]
        numbers = np.random.default_rng((0, 1, index))
        params = draw(self.row, True, BATCH, self.images.side, self.size, numbers)
        done = apply_opencv([self.images.pixels[row] for row in rows], params, self.size)
        labels = torch.from_numpy(self.images.labels[rows])
        return Batch(torch.from_numpy(done), labels, self.size, None)


def enlarged(folder: Path, count: int) -> Path:
    """Write `count` toy cars as 640 x 480 JPEGs, by class, with a camera's noise.

    Without it a drawn image is half as many bytes as a photograph, and decodes twice as fast.
    """
    numbers = np.random.default_rng(0)
    toys = render_toycars(folder / "toys", images_per_class=-(-count // 12))
    photos = folder / "photos"
    for file in sorted(toys.glob("*/*")):
        image = cv2.imread(str(file))
        if image is None:
            continue
        target = photos / file.parent.name / f"{file.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        large = cv2.resize(image, (640, 480), interpolation=cv2.INTER_CUBIC)
        noisy = large + numbers.normal(0, 7, large.shape)
        large = np.clip(noisy, 0, 255).astype(np.uint8)
        cv2.imwrite(str(target), large, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return photos


def by_timm(photos: Path, size: int, prefetcher: bool) -> int:
    loader = create_loader(
        ImageDataset(str(photos)),
        input_size=(3, size, size),
        batch_size=BATCH,
        is_training=True,
        use_prefetcher=prefetcher,
        num_workers=0,
        color_jitter=0.4,
        persistent_workers=False,
        device=CPU,
    )
    return sum(len(images) for images, _ in loader)


def by_store(plan: BenchPlan, normalise: bool, threads: int = 1) -> int:
    numbers = arithmetic(SPEC, Compute(channels_last=True), CPU)
    count = 0
    for batch in Loader(plan, threads):
        if normalise:
            numbers.normalise(to_device(batch, CPU)[0])
        count += len(batch)
    return count


if __name__ == "__main__":
    main()
