"""Learning rates over a trial: a pure function of the optimizer step, and plateau's few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi, sqrt

from torch.optim import Optimizer

from carray.config import ScheduleConfig
from carray.metrics import Objective

WARMUP_START = 0.01  # of the peak
ONE_CYCLE_START = 0.04
RESTART = 0.5  # of the peak, where a training is continued; see the README of tests/benchmarks
ONE_CYCLE_RISE = 0.3  # share of the steps before the peak, where no warm-up is given
WSD_DECAY = 0.2  # share of the steps on the way down, where no decay is given
STEPS = 3  # stretches of equal lr, where their length isn't given


def lr_factor(schedule: ScheduleConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return lr over peak lr at the 0-based optimizer `step`, plateau's own factor left out.

    Cosine and its restarts: Loshchilov & Hutter, "SGDR", ICLR 2017. One-cycle: Smith & Topin, 2018.
    Warm-up, stable, decay: Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed
    Training Durations", NeurIPS 2024, whose way down is one less a root.
    """
    restart = steps_per_epoch * schedule.restart_after
    total = steps_per_epoch * epochs
    if restart and schedule.name not in ("plateau", "constant"):
        if step >= restart:
            share = _share(step - restart, total - restart)
            return _between(RESTART, schedule.min_lr_ratio, share)
        total = restart
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if schedule.name == "one_cycle":
        rise = warmup or round(ONE_CYCLE_RISE * total)
        if step < rise:
            return _between(ONE_CYCLE_START, 1.0, step / rise)
        return _between(1.0, schedule.min_lr_ratio, _share(step - rise, total - rise))
    if step < warmup:
        return WARMUP_START + (1 - WARMUP_START) * step / warmup
    decay = round(schedule.decay_epochs * steps_per_epoch)
    if schedule.name == "cosine":
        whole = total - warmup
        return _between(
            1.0, schedule.min_lr_ratio, _share(step - warmup, min(decay or whole, whole))
        )
    if schedule.name == "wsd":
        down = min(decay or round(WSD_DECAY * total), total - warmup)
        return 1.0 - (1.0 - schedule.min_lr_ratio) * sqrt(_share(step - (total - down), down))
    if schedule.name == "step":
        stretch = round(schedule.step_epochs * steps_per_epoch) or -(-total // STEPS)
        return max(schedule.min_lr_ratio, schedule.step_factor ** (step // stretch))
    return 1.0


def _share(step: int, steps: int) -> float:
    """Return how far `step` is among `steps`; the last one is 1."""
    return min(1.0, max(0, step) / max(1, steps - 1))


def _between(first: float, last: float, share: float) -> float:
    """Go from `first` to `last` along half a cosine."""
    return last + (first - last) * (1 + cos(pi * share)) / 2


@dataclass(frozen=True)
class Plateau:
    """What a plateau schedule remembers between epochs."""

    factor: float = 1.0
    best: float = float("nan")
    bad_epochs: int = 0

    def after(self, schedule: ScheduleConfig, metric: str, value: float) -> Plateau:
        """Return the state after an epoch that brought `value` in `metric`."""
        if schedule.name != "plateau":
            return self
        if Objective(metric).is_better(value, self.best):
            return Plateau(self.factor, value, 0)
        if self.bad_epochs < schedule.plateau_patience:
            return Plateau(self.factor, self.best, self.bad_epochs + 1)
        lower = max(schedule.min_lr_ratio, self.factor * schedule.plateau_factor)
        return Plateau(lower, self.best, 0)


def set_lr(optimizer: Optimizer, factor: float) -> None:
    """Give every parameter group its own peak lr times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
