"""What a device could do at most: a training step's operations, and how fast matrices multiply."""

from __future__ import annotations

import time
from collections.abc import Callable

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}
MATRIX_SECONDS = 1.0


def most_images_per_second(backbone: str, size: int, device: str) -> float:
    """Return how many images a second `device` trained if it did nothing but arithmetic."""
    return matrix_flops(device) / step_flops(backbone, size)


def step_flops(backbone: str, size: int) -> int:
    """Count a training step's operations by the image, multiplications and additions apart.

    Three times those of the forward pass: torch counts a grouped convolution's backward pass as if
    it had no groups.
    """
    with torch.device("meta"):  # shapes alone are enough
        model = timm.create_model(backbone, num_classes=10).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, size, size))
    return 3 * int(counter.get_total_flops())


def matrix_flops(device: str) -> float:
    """Measure how many operations a second a product of large square matrices does."""
    side = MATRIX_SIDE[device]
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    wait: Callable[[], None] = torch.cuda.synchronize if device == "cuda" else lambda: None
    torch.mm(one, other)
    wait()
    products, began = 0, time.perf_counter()
    while (seconds := time.perf_counter() - began) < MATRIX_SECONDS:
        for _ in range(10):
            torch.mm(one, other)
        wait()
        products += 10
    return 2.0 * side**3 * products / seconds
