"""How long an epoch takes, and what its GPU draws meanwhile, as NVML counts it."""

from __future__ import annotations

import math
import time

import torch

from carray.training.ranks import Ranks


class EpochMeter:
    """Seconds and joules since it was made.

    NVML counts all that a GPU draws, so of trials that share one each sees the whole.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = time.perf_counter()
        self._joules_before = drawn_joules(device)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def joules(self, ranks: Ranks) -> float | None:
        """Return what the ranks' GPUs drew together; None if one isn't counted. All ranks call."""
        drawn = torch.tensor([drawn_joules(self._device) - self._joules_before])
        total = float(ranks.all_sum(drawn.double()))
        return total if math.isfinite(total) else None


def drawn_joules(device: torch.device) -> float:
    """Return what a GPU has drawn since its driver was loaded; NaN where nobody counts that."""
    if device.type != "cuda":
        return math.nan
    import pynvml

    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000  # type: ignore[no-any-return]
    except pynvml.NVMLError:  # before Volta, a part of a GPU, or no driver that tells it
        return math.nan
