"""Images a second per core: carray's pixel store and loader against timm's `create_loader`.

    python tests/benchmarks/bench_input.py [--images 400] [--size 224] [--rounds 5]

Both read the same JPEGs (640 x 480, quality 90, toy cars enlarged); timm's loader decodes each
time, the store has decoded once before. One process, no workers on either side; rounds are
interleaved, ratios are of CPU seconds and the median over the rounds.

Each group compares the same work. Bytes are what either loader hands over where the step
normalises, as timm's prefetcher does and we do; "normalised" adds that, in float32. "Crop, flip,
colour" is timm's default: random resized crop, flip, brightness, contrast and saturation. "The
dial" adds rotation, shear, shift, tone and erasing; timm's side then has RandAugment and erasing on
as many of the images. The second table shows what loader threads are good for beside a consumer
that only normalises: wall time, and what the machine spends on it.
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
from timm.data.transforms_factory import transforms_imagenet_train

from carray.config import Compute, InputSpec
from carray.data.pixels.augment_ranges import AugmentRanges, ranges_for
from carray.data.pixels.augmentation import sample_params
from carray.data.pixels.augmentation_backends import apply_opencv
from carray.data.pixels.loader import Batch, Images, Loader, to_device
from carray.data.pixels.store import open_store
from carray.data.preparation.prepare import prepare
from carray.data.synthetic import render_toycars
from carray.training.compute.malloc import keep_freed_memory
from carray.training.trial_state import build_numerics
from carray.typing import Rows

BATCH = 32
REPEATS = 4  # passes over the images in one timing
CPU = torch.device("cpu")
TIMMS = replace(ranges_for(1.0), hue=0.0, geometric_share=0.0, tone_share=0.0, erase_share=0.0)
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
        whole = BenchPlan(images, rows, asked.size, ranges_for(0.3))
        most = BenchPlan(images, rows, asked.size, ranges_for(1.0))
        print(
            f"{asked.size} px, train augmentation; building the store: {1000 * built:.1f} ms an "
            f"image, once"
        )
        compare(
            {
                "crop, flip, colour; bytes": {
                    "timm": lambda: by_timm(photos, asked.size, "bytes"),
                    "store": lambda: by_store(same, normalise=False),
                },
                "crop, flip, colour; normalised": {
                    "timm": lambda: by_timm(photos, asked.size, "normalised"),
                    "timm, by its prefetcher": lambda: by_timm(photos, asked.size, "prefetcher"),
                    "store": lambda: by_store(same, normalise=True),
                },
                "the dial at 0.3; bytes": {
                    "timm, RandAugment, erasing": lambda: by_timm(photos, asked.size, "bytes", 0.3),
                    "store": lambda: by_store(whole, normalise=False),
                },
                "the dial at 0.3; normalised": {
                    "timm, RandAugment, erasing": lambda: by_timm(
                        photos, asked.size, "normalised", 0.3
                    ),
                    "store": lambda: by_store(whole, normalise=True),
                    "store, the dial at 1.0": lambda: by_store(most, normalise=True),
                },
            },
            asked.rounds,
        )
        compare_threads(whole, asked.rounds)


def compare(groups: dict[str, dict[str, Callable[[], int]]], rounds: int) -> None:
    """Print images per CPU second of each way, and its ratio to the first of its group."""
    speeds: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for group, ways in groups.items():
            for name, run in ways.items():
                start = time.process_time()
                count = run()
                speed = count / (time.process_time() - start)
                speeds.setdefault((group, name), []).append(speed)
    print(f"{'images/s per core':34s} {'min':>8s} {'median':>8s} {'max':>8s}   ratio (min, max)")
    for group, ways in groups.items():
        print(group)
        base = speeds[group, next(iter(ways))]
        for index, name in enumerate(ways):
            values = speeds[group, name]
            line = " ".join(
                f"{v:8,.0f}" for v in (min(values), statistics.median(values), max(values))
            )
            if index:
                ratios = [value / timm for value, timm in zip(values, base, strict=True)]
                line += (
                    f"   x{statistics.median(ratios):.1f} ({min(ratios):.1f}, {max(ratios):.1f})"
                )
            print(f"  {name:32s} {line}")


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
    row: AugmentRanges

    def __len__(self) -> int:
        return len(self.rows) // BATCH

    def make(self, index: int) -> Batch:
        rows = self.rows[index * BATCH :][:BATCH]
        numbers = np.random.default_rng((0, 1, index))
        params = sample_params(self.row, True, BATCH, self.images.side, self.size, numbers)
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


def by_timm(photos: Path, size: int, kind: str, strength: float | None = None) -> int:
    """Count timm's images: "bytes" before its prefetcher normalises them, "prefetcher" after."""
    dataset = ImageDataset(str(photos))
    loader = create_loader(
        dataset,
        input_size=(3, size, size),
        batch_size=BATCH,
        is_training=True,
        use_prefetcher=kind != "normalised",
        num_workers=0,
        color_jitter=0.4,
        persistent_workers=False,
        device=CPU,
    )
    if strength is not None:
        dataset.transform = timms_dial(size, strength, use_prefetcher=kind != "normalised")
    return sum(len(images) for images, _ in (loader.loader if kind == "bytes" else loader))


def timms_dial(size: int, strength: float, use_prefetcher: bool) -> Callable[..., object]:
    """Return timm's transforms with as much of each kind as the dial's `strength` has."""
    row = ranges_for(strength)
    share = row.geometric_share + row.tone_share
    transform: Callable[..., object] = transforms_imagenet_train(
        size,
        scale=(row.crop_area_min, 1.0),
        ratio=(1 / row.crop_aspect_max, row.crop_aspect_max),
        color_jitter=row.colour,
        force_color_jitter=True,
        auto_augment=f"rand-m{round(10 * strength)}-n1-p{share:g}-inc1",
        interpolation="bilinear",
        re_prob=row.erase_share,
        use_prefetcher=use_prefetcher,
    )
    return transform


def by_store(plan: BenchPlan, normalise: bool, threads: int = 0) -> int:
    numbers = build_numerics(SPEC, Compute(channels_last=True), CPU)
    count = 0
    for batch in Loader(plan, threads):
        if normalise:
            numbers.normalise(to_device(batch, CPU)[0])
        count += len(batch)
    return count


if __name__ == "__main__":
    main()
