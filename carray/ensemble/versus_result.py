"""What a comparison of two sides brought: plain data, and its table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from carray.ensemble.result import CHOSE_EPOCHS, plain
from carray.ensemble.statistics import Interval

SHOWN_DIFFERENCES = 6
Verdict = Literal["better", "worse", "within noise"]


@dataclass(frozen=True)
class Side:
    """What is compared."""

    name: str
    trials: tuple[str, ...]
    train_images: int
    only_here: int
    """Training images that the other side's data leave out."""
    left_out: int
    """Images of the split that the other side lacks; they don't count."""
    top1: Interval
    """Mean of the trials, on the images that both sides have; so is `log_loss`."""
    log_loss: Interval


@dataclass(frozen=True)
class Versus:
    """Two sides on the images that both have."""

    split: str
    images: int
    first: Side
    second: Side
    top1: Interval
    """Second minus first: above zero the second is better."""
    top1_p: float
    """McNemar's exact test where each side is one trial, else as `log_loss_p`."""
    log_loss: Interval
    """Second minus first: below zero the second is better."""
    log_loss_p: float
    """Two-sided, by bootstrap over images and, where a side has several, trials."""
    differences: dict[str, tuple[Any, Any]]
    """Names of the configuration that differ, the seed apart."""
    verdict: Verdict
    """Of the second side; by log-loss first, then by top-1."""
    models_that_opened_test: int

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        told: dict[str, Any] = plain(asdict(self))
        return told


def versus_lines(found: Versus) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    lines = [f"{found.images} images of {found.split} that both have; 95 % intervals", ""]
    lines += [
        f"{'':<4}{'':<20}{'trials':>7}{'train images':>14}{'top-1':>27}{'log-loss':>27}",
        *(_side_line(letter, side) for letter, side in (("A", found.first), ("B", found.second))),
        f"{'B - A':<45}{_told(found.top1, True):>27}{_told(found.log_loss, True):>27}",
        f"{'p':<45}{_p(found.top1_p):>27}{_p(found.log_loss_p):>27}",
        "",
        f"B is {found.verdict}" + (" than A" if found.verdict != "within noise" else " of A"),
    ]
    for letter, side in (("A", found.first), ("B", found.second)):
        if side.only_here:
            lines.append(f"{side.only_here} training images are in {letter} alone")
        if side.left_out:
            lines.append(f"{side.left_out} {found.split} images of {letter} don't count")
    shown = list(found.differences.items())[:SHOWN_DIFFERENCES]
    lines += [f"{name}: {one!s:.30} in A, {other!s:.30} in B" for name, (one, other) in shown]
    if len(found.differences) > len(shown):
        lines.append(f"{len(found.differences) - len(shown)} more settings differ")
    if found.split == "val":
        lines.append(CHOSE_EPOCHS)
    if len(found.first.trials) == len(found.second.trials) == 1:
        lines.append("one trial each: what another seed would change is not in these intervals")
    return lines


def _side_line(letter: str, side: Side) -> str:
    return (
        f"{letter:<4}{side.name[:19]:<20}{len(side.trials):>7}{side.train_images:>14}"
        f"{_told(side.top1):>27}{_told(side.log_loss):>27}"
    )


def _told(found: Interval, is_change: bool = False) -> str:
    sign = "+" if is_change else ""
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"


def _p(value: float) -> str:
    return f"{value:.3g}"
