"""What the trials on all folds brought: plain data, and its table."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carray.ensemble.openings import looks_text
from carray.ensemble.result import plain
from carray.ensemble.statistics import Interval


@dataclass(frozen=True)
class FoldRow:
    """One fold's trial, judged on the images that it was not trained on."""

    fold: int
    trial: str
    images: int
    best_epoch: int
    epochs: int
    log_loss: float
    top1: float


@dataclass(frozen=True)
class ScoreRow:
    """Something's score on some images, with intervals."""

    what: str
    split: str
    images: int
    log_loss: Interval
    top1: Interval


@dataclass(frozen=True)
class Folds:
    """A configuration on every fold."""

    study: str
    backbone: str
    folds: tuple[FoldRow, ...]
    out_of_fold: ScoreRow
    """Every training image, by the trial that hasn't seen it."""
    ensembles: tuple[ScoreRow, ...]
    """On `blend` and, where it was opened, `test`: the folds alone (their mean) and merged."""
    rule: str
    """The ensemble that is better on `blend`; soft vote where there is no such split."""
    logits_file: Path
    """`rows` (manifest), `labels`, `logits` (images, classes) float16, `folds`."""
    models_that_opened_test: int
    package: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        files = {n: str(getattr(self, n) or "") for n in ("logits_file", "package")}
        told: dict[str, Any] = plain({**asdict(self), **files})
        return told


def folds_lines(found: Folds) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    lines = [
        f"{found.backbone} on {len(found.folds)} folds of study {found.study}",
        "",
        f"{'fold':<6}{'trial':<8}{'images':>8}{'epochs':>8}{'best at':>9}{'log-loss':>11}"
        f"{'top-1':>9}",
    ]
    lines += [
        f"{row.fold:<6}{row.trial[-4:]:<8}{row.images:>8}{row.epochs:>8}{row.best_epoch:>9}"
        f"{row.log_loss:>11.4f}{row.top1:>9.4f}"
        for row in found.folds
    ]
    spread = np.std([row.top1 for row in found.folds], ddof=1) if len(found.folds) > 1 else math.nan
    lines += [f"standard deviation of top-1 over folds: {spread:.4f}", ""]
    head = f"{'(95 % intervals)':<30}{'split':<6}{'images':>7}"
    lines += [f"{head}{'log-loss':>28}{'top-1':>28}"]
    for row in (found.out_of_fold, *found.ensembles):
        chosen = "> " if row.what == found.rule else "  "
        loss, top1 = (
            f"{i.value:.4f} [{i.low:.4f}, {i.high:.4f}]" for i in (row.log_loss, row.top1)
        )
        lines.append(f"{chosen + row.what:<30}{row.split:<6}{row.images:>7}{loss:>28}{top1:>28}")
    lines += ["each fold chose its trial's epoch: out of fold flatters a little"]
    if found.models_that_opened_test:
        lines += ["", looks_text(found.models_that_opened_test)]
    lines += [f"out-of-fold logits: {found.logits_file}"]
    return [*lines, f"model package: {found.package}"] if found.package else lines
