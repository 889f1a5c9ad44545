"""A training step alone, each way that it can run: images a second, and of what arithmetic allows.

    python tests/benchmarks/bench_step.py [--device cuda] [--models resnet50@224] [--batch 128]

A step is all that follows the store's bytes: augmentation (on the device where that is a GPU),
normalisation, forward and backward pass, AdamW. "plain" is what timm's `train.py` computes: torch's
own convolutions, on a GPU with cuDNN's fastest kernels whether they repeat or not. The ratios are
to it, in one process, one way after the other, medians of steps. "Of the limit" is as in
`bench_trial.py`.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from bench_trial import MODELS, device_name, sized
from limits import most_images_per_second
from torch.nn import functional as F

from carray.config import Compute, TrialConfig, build_config
from carray.data.pixels.augment_ranges import ranges_for
from carray.data.pixels.augmentation import sample_params
from carray.data.pixels.augmentation_backends import apply_opencv, apply_torch
from carray.data.pixels.store import store_side
from carray.models.backbones import input_spec
from carray.models.classifier import build_classifier
from carray.models.depthwise import replace_depthwise_convolutions
from carray.training.optimizer import build_optimizer
from carray.training.trial_state import (
    build_numerics,
    compile_step,
    default_compute,
    disable_inplace_activations,
)

CLASSES = 20
WARM_UP = 3
BATCH = {"cpu": 32, "cuda": 64}


@dataclass(frozen=True)
class Way:
    """How steps run."""

    name: str
    compiled: bool = False
    graphs: bool = False
    plain: bool = False


WAYS = {
    "cpu": [Way("plain", plain=True), Way("as it is"), Way("compiled", compiled=True)],
    "cuda": [
        Way("plain", plain=True),
        Way("as it is"),
        Way("graphs", graphs=True),
        Way("compiled", compiled=True),
        Way("compiled, graphs", compiled=True, graphs=True),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=list(WAYS), default="cpu")
    parser.add_argument("--models", nargs="+", type=sized, help="BACKBONE@PIXELS")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    batch = asked.batch or BATCH[asked.device]
    print(f"on {device_name(asked.device)}, batch {batch}; medians of {asked.steps} steps")
    print(f"{'model':24s} {'way':17s}  images/s  ratio  of the limit  first step s   GiB")
    for backbone, size in asked.models or [sized(text) for text in MODELS[asked.device]]:
        config = build_config(
            {
                "backbone": backbone,
                "pretrained": False,
                "image_size": size,
                "device_batch_size": batch,
                "epochs": 10,
            }
        )
        limit = most_images_per_second(backbone, size, asked.device)
        plain = 0.0
        for way in WAYS[asked.device]:
            first, seconds, gib = timed(config, way, torch.device(asked.device), asked.steps)
            speed = batch / seconds
            plain = plain or speed
            print(
                f"{f'{backbone}@{size}':24s} {way.name:17s} {speed:9,.1f} "
                f"{f'x{speed / plain:.2f}':>6s} {speed / limit:13.1%} {first:13.1f} {gib:5.1f}",
                flush=True,
            )


def timed(
    config: TrialConfig, way: Way, device: torch.device, steps: int
) -> tuple[float, float, float]:
    """Return the seconds of the first step, the median of the next, and the GiB of the device."""
    on_gpu = device.type == "cuda"
    torch.backends.cudnn.benchmark = way.plain
    torch.backends.cudnn.deterministic = not way.plain
    step = built(config, way, device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(WARM_UP + steps):
        began = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    gib = torch.cuda.max_memory_reserved() / 2**30 if on_gpu else 0.0
    del step
    if way.compiled:
        torch.compiler.reset()
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
    return seconds[0], statistics.median(seconds[WARM_UP:]), gib


def built(config: TrialConfig, way: Way, device: torch.device) -> Callable[[], None]:
    """Return what runs one step of a new trial."""
    numbers = np.random.default_rng(0)
    batch, size, side = config.device_batch_size, config.image_size, store_side(config.image_size)
    classifier = build_classifier(config, CLASSES).classifier.train()
    if not way.plain:
        disable_inplace_activations(classifier)
        if device.type == "cuda":
            replace_depthwise_convolutions(classifier)
    usual = default_compute(config, classifier, device)
    compute: Compute = usual.model_copy(update={"compiled": way.compiled, "graphs": way.graphs})
    how = build_numerics(input_spec(config), compute, device)
    classifier.to(device, memory_format=how.memory_format)  # type: ignore[call-overload]
    optimizer = build_optimizer(classifier, config.optimizer)
    model = compile_step(classifier, compute, batch, size)
    stored = numbers.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    bytes_there = torch.from_numpy(stored).to(device)
    labels = torch.from_numpy(numbers.integers(0, CLASSES, batch)).to(device)

    def step() -> None:
        params = sample_params(
            ranges_for(config.augment.strength), True, batch, side, size, numbers
        )
        if device.type == "cuda":
            images = apply_torch(bytes_there, params, size)
        else:
            images = torch.from_numpy(apply_opencv(stored, params, size)).permute(0, 3, 1, 2)
        with how.autocast():
            logits = model(how.normalise(images))
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


if __name__ == "__main__":
    main()
