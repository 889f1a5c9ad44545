"""Several small trials on one GPU: as many as its memory holds by what the largest one takes.

`--gpus-per-trial auto` measures that on one of the cluster's GPUs and takes the others to be alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ray

from carray.config import TrialConfig
from carray.data.manifest import Manifest
from carray.errors import PlanError, counted
from carray.search.placement.plan import AUTO, Node
from carray.search.preflight import typical_configs
from carray.search.space.space import SearchSpace
from carray.typing import GIB

MARGIN = 0.1  # of a GPU's memory that stays free: for fragments, and trials unlike those measured
MOST_LANES = 8  # on a GPU; more only wait for one another's kernels
LARGEST = "image_size", "device_batch_size"  # of what a trial may draw, what its memory grows with


@dataclass(frozen=True)
class MeasuredMemory:
    """A GPU, and what trials take of it."""

    gpu_gib: float
    trials_gib: tuple[float, ...]
    """Of each configuration; infinity where it doesn't fit."""


def lanes_per_gpu(trial_gib: float, gpu_gib: float) -> int:
    """Return how many trials of `trial_gib` share a GPU, from 1 to `MOST_LANES`.

    Raises:
        ValueError: one of the sizes isn't above 0.
    """
    if not (trial_gib > 0 and gpu_gib > 0):
        raise ValueError(f"{trial_gib=} and {gpu_gib=} must be above 0")
    fit = gpu_gib * (1 - MARGIN) / trial_gib
    return min(MOST_LANES, max(1, math.floor(fit + 1e-9)))


def share_of_gpu(lanes: int) -> float:
    """Return the share of each of `lanes` lanes on a GPU, as Ray counts: in ten-thousandths."""
    return math.floor(10_000 / lanes) / 10_000


def resolve_gpu_share(
    gpus_per_trial: float | str | None,
    space: SearchSpace,
    manifest: Manifest,
    nodes: Sequence[Node],
    say: Callable[[str], None],
) -> float | None:
    """Return the GPUs of a trial, measured where `auto` is asked for; `say` is told what was."""
    if gpus_per_trial != AUTO:
        return None if gpus_per_trial is None else float(gpus_per_trial)
    if not any(node.get("GPU", 0) >= 1 for node in nodes):
        say("packing: the cluster has no GPU, trials run on CPUs")
        return None
    configs = typical_configs(space, LARGEST)
    measured = measure(configs, len(manifest.classes))
    lanes = lanes_per_gpu(max(measured.trials_gib), measured.gpu_gib)
    say(gpu_share_text(configs, measured, lanes))
    return share_of_gpu(lanes)


def gpu_share_text(configs: Sequence[TrialConfig], measured: MeasuredMemory, lanes: int) -> str:
    """Say how many trials share a GPU, and which one decides that."""
    taken, config = max(zip(measured.trials_gib, configs, strict=True), key=lambda pair: pair[0])
    size = "more than that" if math.isinf(taken) else f"{taken:.1f} GiB"
    what = f"{config.backbone}, {config.image_size} px, batch {config.device_batch_size}"
    trials = counted(lanes, "trial")
    return f"packing: {trials} a GPU of {measured.gpu_gib:.0f} GiB; {what} takes {size}"


def measure(configs: Sequence[TrialConfig], num_classes: int) -> MeasuredMemory:
    """Measure each configuration on a GPU of the cluster, one after the other in one process.

    Raises:
        PlanError: the measurement failed, or its process died.
    """
    task = ray.remote(num_cpus=1, num_gpus=1, max_calls=1)(_measure)
    try:
        found: MeasuredMemory = ray.get(task.remote(list(configs), num_classes))
    except ray.exceptions.RayError as error:
        why = str(error).strip().splitlines()[-1]
        raise PlanError(
            f"--gpus-per-trial auto could not measure a trial's memory ({why}); give a number"
        ) from None
    return found


def _measure(configs: Sequence[TrialConfig], num_classes: int) -> MeasuredMemory:
    import torch

    from carray.training.compute.memory_footprint import footprint_gib

    device = torch.device("cuda")
    gpu_gib = torch.cuda.get_device_properties(device).total_memory / GIB
    return MeasuredMemory(
        gpu_gib, tuple(footprint_gib(each, num_classes, device) for each in configs)
    )
