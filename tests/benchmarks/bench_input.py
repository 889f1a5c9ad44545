"""Images a second per core: carray's pixel store and loader against timm's `create_loader`.

    python tests/benchmarks/bench_input.py [--images 400] [--size 224] [--rounds 3]

Both read the same JPEGs (640 x 480, quality 90, toy cars enlarged) with crop, flip and colour
jitter; timm's loader decodes each time, the store has decoded once before. One process, one
thread each; rounds are interleaved, the ratio is of CPU seconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from timm.data import ImageDataset, create_loader

from carray.config import AugmentConfig
from carray.data.loader import Images, Loader, TrainPlan, to_device
from carray.data.manifest import Manifest
from carray.data.prepare import prepare
from carray.data.store import open_store
from carray.data.toycars import render_toycars

BATCH = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        photos = enlarged(Path(folder), asked.images)
        manifest = prepare(photos, Path(folder) / "data")
        start = time.process_time()
        open_store(manifest, asked.size, "squash")
        built = (time.process_time() - start) / len(manifest.included)
        ways: dict[str, Callable[[], int]] = {
            "timm create_loader": lambda: by_timm(photos, asked.size),
            "store, augmented": lambda: by_store(manifest, asked.size, normalise=False),
            "store, augmented, normalised": lambda: by_store(manifest, asked.size, normalise=True),
        }
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(asked.rounds):
            for name, run in ways.items():
                start = time.process_time()
                count = run()
                speeds[name].append(count / (time.process_time() - start))
    base = statistics.median(speeds["timm create_loader"])
    print(
        f"{asked.size} px, train augmentation; building the store: {1000 * built:.1f} ms an image"
    )
    print("pipeline                        images/s per core (min, median, max)    ratio")
    for name, values in speeds.items():
        middle = statistics.median(values)
        spread = f"{min(values):10,.0f} {middle:10,.0f} {max(values):10,.0f}"
        print(f"{name:30s} {spread} {'':10s} x{middle / base:.1f}")


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


def by_timm(photos: Path, size: int) -> int:
    loader = create_loader(
        ImageDataset(str(photos)),
        input_size=(3, size, size),
        batch_size=BATCH,
        is_training=True,
        use_prefetcher=False,
        num_workers=0,
        color_jitter=0.4,
        persistent_workers=False,
        device=torch.device("cpu"),
    )
    return sum(len(images) for images, _ in loader)


def by_store(manifest: Manifest, size: int, normalise: bool) -> int:
    pixels = open_store(manifest, size, "squash").pixels
    plan = TrainPlan(
        images=Images(pixels, manifest.labels),
        rows=manifest.rows("train"),
        batch_size=BATCH,
        image_size=size,
        augment=AugmentConfig(strength=0.3),
        seeds=(0, 1, 0),
        mixes=False,
        on_device=False,
    )
    scale, shift = torch.full((1, 3, 1, 1), 1 / 57.0), torch.full((1, 3, 1, 1), -2.1)
    count = 0
    for batch in Loader(plan):
        if normalise:
            images, _ = to_device(batch, torch.device("cpu"))
            torch.addcmul(shift, images, scale)
        count += len(batch)
    return count


if __name__ == "__main__":
    main()
