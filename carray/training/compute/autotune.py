"""Measures how a trial computes fastest on its device, once, and stores it in `probe.json`.

Measured only for a trial that is long enough to win the measurement back; a shorter one takes what
its study has measured, else it computes as `default_compute` says, and so does one whose other ways
don't beat that by `MARGIN`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from torch.nn import functional as F

from carray.config import Compute, TrialConfig
from carray.files import locked, write_text
from carray.models.classifier import Classifier, build_classifier
from carray.training.trial_state import AUTOCAST, compile_step, default_compute

TIMED_STEPS = 3  # of each way, after one that warms it up; the fastest counts
MOST_SHARE = {"cpu": 0.05, "cuda": 0.2}  # of a trial's steps; a small net's graphs win more
MARGIN = 1.05  # by which another way must beat the usual one
COMPILE_SECONDS = 60.0  # what compiling is taken to cost before it was measured
WON_BACK = {"cpu": 20, "cuda": 5}  # times that cost, a trial must train to have it measured


class Timing(BaseModel):
    """One way, measured."""

    model_config = ConfigDict(frozen=True)
    compute: Compute
    step_seconds: float
    """Forward and backward of one batch."""
    compile_seconds: float = 0.0


class TimingCache(BaseModel):
    """`probe.json`: what was measured, by backbone, size, batch and device."""

    model_config = ConfigDict(frozen=True)
    version: int = 1
    timings: dict[str, tuple[Timing, ...]] = {}

    @classmethod
    def read(cls, file: Path) -> TimingCache:
        """Read `file`; nothing is known where it can't be read."""
        try:
            return cls.model_validate_json(file.read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            return cls()

    def lines(self) -> list[str]:
        """Return everything measured, the fastest way first, in lines of at most 90 columns."""
        lines = []
        for key, timings in self.timings.items():
            lines.append(f"a step of {key}"[:90])
            ranked = sorted(timings, key=lambda timing: timing.step_seconds)
            lines += [f"  {1000 * each.step_seconds:.0f} ms: {each.compute}" for each in ranked]
        return lines


def choose_compute(
    classifier: Classifier,
    config: TrialConfig,
    train_images: int,
    device: torch.device,
    file: Path,
) -> Compute:
    """Decide how a trial computes; `classifier` is as it is before its first epoch, on the CPU.

    Of processes that ask at once one measures, the others wait and read `file`.

    Raises:
        ConfigError: the device doesn't have the precision that `config` fixes.
    """
    usual = default_compute(config, classifier, device)
    if usual.compiled or config.finetune.policy == "head_only":
        return usual
    steps = config.epochs * max(1, train_images // config.device_batch_size)
    ways = eager_ways(usual, config, device)
    too_short = len(ways) * (TIMED_STEPS + 1) > MOST_SHARE[device.type] * steps
    if too_short and not file.exists():
        return usual
    key = _key(config, device)
    with locked(file.with_name(f".lock-{file.name}")):
        probes = TimingCache.read(file)
        known = probes.timings.get(key, ())
        if not known and not too_short:
            known = _timed(classifier, config, ways, device)
        if may_compile(known, config, steps, device):
            fastest = min(known, key=lambda timing: timing.step_seconds).compute
            known += _timed(classifier, config, compiled_ways(fastest, config, device), device)
        if known != probes.timings.get(key, ()):
            updated = TimingCache(timings={**probes.timings, key: known})
            write_text(file, updated.model_dump_json(indent=1) + "\n")
    return decide(known, usual, steps)


def decide(timings: Sequence[Timing], usual: Compute, steps: int) -> Compute:
    """Return the way that ends a trial of `steps` steps first; the usual one unless beaten."""
    costs = {t.compute: t.compile_seconds + steps * t.step_seconds for t in timings}
    if usual not in costs:
        return usual
    best = min(costs, key=lambda compute: costs[compute])
    return best if MARGIN * costs[best] < costs[usual] else usual


def may_compile(
    timings: Sequence[Timing], config: TrialConfig, steps: int, device: torch.device
) -> bool:
    """Say whether compiling should be measured: it may pay, and it hasn't been yet.

    A GPU's steps get 1.3 to 1.8 times as fast, a CPU's 1.0 to 1.3 times.
    """
    if config.compile != "auto" or config.finetune.policy != "full" or not timings:
        return False
    seconds = steps * min(timing.step_seconds for timing in timings)
    worth = seconds > WON_BACK[device.type] * COMPILE_SECONDS
    return worth and not any(t.compute.compiled for t in timings)


def eager_ways(usual: Compute, config: TrialConfig, device: torch.device) -> list[Compute]:
    """Return the ways worth a measurement, the usual one first."""
    ways = [usual, *_as_graphs(usual, config, device)]
    if device.type == "cpu" and usual.channels_last:
        ways.append(usual.model_copy(update={"channels_last": False}))
    if config.precision == "auto" and usual.precision == "fp32" and _has_fast_bf16(device):
        ways += [way.model_copy(update={"precision": "bf16"}) for way in ways]
    return ways


def compiled_ways(eager: Compute, config: TrialConfig, device: torch.device) -> list[Compute]:
    """Return the compiled ways worth a measurement."""
    way = eager.model_copy(update={"compiled": True, "graphs": False})
    return [way, *_as_graphs(way, config, device)]


def _as_graphs(way: Compute, config: TrialConfig, device: torch.device) -> list[Compute]:
    """Return `way` as CUDA graphs where there can be any: none of steps that add up gradients, or
    that compute activations again."""
    keeps = config.accumulation > 1 or config.grad_checkpointing
    possible = device.type == "cuda" and not keeps
    return [way.model_copy(update={"graphs": True})] if possible else []


def _has_fast_bf16(device: torch.device) -> bool:
    """Say whether a CPU multiplies in bf16; without that autocast only adds conversions."""
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _key(config: TrialConfig, device: torch.device) -> str:
    on_gpu = device.type == "cuda"
    where = torch.cuda.get_device_name(device) if on_gpu else f"threads: {torch.get_num_threads()}"
    head = f" {config.head.kind}" if config.head.kind != "linear" else ""
    size, batch = config.image_size, config.device_batch_size
    precision = "" if config.precision == "auto" else f" {config.precision}"
    return f"{config.backbone}{head}{precision}, {size} px, batch {batch}, {where}"


def _timed(
    classifier: Classifier, config: TrialConfig, ways: Sequence[Compute], device: torch.device
) -> tuple[Timing, ...]:
    """Time each way on a copy; one that fails, for want of memory or a compiler, is left out."""
    timings = []
    for compute in ways:
        try:
            timings.append(_time(classifier, config, compute, device))
        except (RuntimeError, MemoryError):
            continue
    return tuple(timings)


def _time(
    classifier: Classifier, config: TrialConfig, compute: Compute, device: torch.device
) -> Timing:
    layout = torch.channels_last if compute.channels_last else torch.contiguous_format
    model = deepcopy(classifier).to(device, memory_format=layout)  # type: ignore[call-overload]
    model.train()
    shape = (config.device_batch_size, 3, config.image_size, config.image_size)
    images = torch.randn(shape, device=device).contiguous(memory_format=layout)
    stepped = compile_step(model, compute, config.device_batch_size, config.image_size)
    seconds = []
    for _ in range(TIMED_STEPS + 1):
        start = time.perf_counter()
        _step(stepped, images, compute)
        model.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    if compute.compiled:
        torch.compiler.reset()
    fastest = min(seconds[1:])
    first = max(0.0, seconds[0] - fastest) if compute.compiled else 0.0
    return Timing(compute=compute, step_seconds=fastest, compile_seconds=first)


def step_seconds(config: TrialConfig, num_classes: int, threads: int) -> float:
    """Time forward and backward of one batch of a trial as it usually computes, untrained."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        untrained = config.model_copy(update={"pretrained": False})
        classifier = build_classifier(untrained, num_classes).classifier
        usual = default_compute(config, classifier, device)
        return _time(classifier, config, usual, device).step_seconds
    finally:
        torch.set_num_threads(before)


def _step(model: Callable[[Tensor], Tensor], images: Tensor, compute: Compute) -> None:
    dtype = AUTOCAST[compute.precision]
    kind = images.device.type
    with torch.autocast(kind, dtype or torch.bfloat16, enabled=dtype is not None):
        logits = model(images)
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
    if kind == "cuda":
        torch.cuda.synchronize()
