"""Recognises out-of-memory errors on GPUs and CPUs, and agrees on them among ranks."""

from __future__ import annotations

import psutil
import torch
from torch import nn

from carray.config import TrialConfig
from carray.errors import TrialInfeasible
from carray.training.ranks import Ranks
from carray.typing import GIB

CONTEXT_GIB = 1.0  # of a GPU, and less, that a process holds with no trial on it
PHRASES = (
    "out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "ALLOC_FAILED",  # cuBLAS and cuDNN
)


class AgreedInfeasible(TrialInfeasible):
    """Raised by every rank at the same point: none waits for another in a collective."""


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether `error` means that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in PHRASES)


def is_crowded(device: torch.device) -> bool:
    """Say whether others hold memory of a GPU on which this process holds next to nothing."""
    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / GIB > CONTEXT_GIB


def can_be_halved(config: TrialConfig) -> bool:
    """Say whether two halves make up a device batch, each of at least two images."""
    return config.device_batch_size >= 4 and config.device_batch_size % 2 == 0


def infeasible_message(config: TrialConfig, device: torch.device, halved: bool = False) -> str:
    """Say what was too much, and the cure; `halved`: batches were taken in two halves already."""
    tried = "; it was tried with half the batch and twice the accumulation" if halved else ""
    return (
        f"out of memory on {device}: backbone {config.backbone!r} with device_batch_size="
        f"{config.device_batch_size} at image_size={config.image_size}; lower device_batch_size "
        f"and raise accumulation to keep the global batch, or set grad_checkpointing{tried}"
    )


def agree_on_memory(
    model: nn.Module, config: TrialConfig, device: torch.device, batch_size: int, ranks: Ranks
) -> None:
    """Try one step's memory on all ranks before the first, so that none is left waiting.

    Runs in eval mode, which leaves batch statistics and random numbers alone; two tensors a
    parameter stand for the optimizer's state. Does nothing with one rank.

    Raises:
        AgreedInfeasible: it was too much for some rank; raised on all.
    """
    if ranks.world_size == 1:
        return
    failed = False
    try:
        _one_step(model.eval(), config, device, batch_size)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failed = True
    model.zero_grad(set_to_none=True)
    if ranks.any(failed):
        raise AgreedInfeasible(infeasible_message(config, device))


def _one_step(model: nn.Module, config: TrialConfig, device: torch.device, batch_size: int) -> None:
    side = config.image_size
    state = [torch.empty_like(p) for p in model.parameters() if p.requires_grad for _ in range(2)]
    images = torch.zeros((batch_size, 3, side, side), device=device)
    model(images).float().sum().backward()
    del state


class PeakMemory:
    """Peak memory of an epoch in GiB: the device's, or the process's where there is none."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._process = psutil.Process()
        self._seen_bytes = 0
        if self._cuda is not None:
            torch.cuda.reset_peak_memory_stats(self._cuda)

    def sample(self) -> None:
        """Look at the process's memory; CUDA keeps its own peak."""
        if self._cuda is None:
            self._seen_bytes = max(self._seen_bytes, self._process.memory_info().rss)

    def largest_gib(self, ranks: Ranks) -> float:
        """Return the largest peak of any rank."""
        own = self._seen_bytes
        if self._cuda is not None:
            own = torch.cuda.max_memory_reserved(self._cuda)  # graphs allocate once, while captured
        peaks = torch.zeros(ranks.world_size, dtype=torch.float64)
        peaks[ranks.rank] = own
        return float(ranks.all_sum(peaks).max()) / GIB
