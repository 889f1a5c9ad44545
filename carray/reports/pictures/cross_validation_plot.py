"""The curves of one configuration on every fold, and their mean: loss and top-1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from carray import metrics
from carray.drawing import plotting, save_png
from carray.errors import RecordError
from carray.records import StudyFolder, TrialRecord
from carray.reports.pictures.panels import COLOURS, INK, MUTED

PANELS = (
    (metrics.TRAIN_LOSS, metrics.VAL_LOG_LOSS, "loss"),
    (metrics.TRAIN_TOP1, metrics.VAL_TOP1, "top-1"),
)
THIN, THICK = 1.0, 2.6


@plotting()
def folds_picture(folder: StudyFolder, trials: Sequence[str]) -> Path:
    """Draw the curves of `trials` (`STUDY/NUMBER`), one line a fold, as a PNG; return its path.

    Raises:
        RecordError: a trial isn't there, or is on no fold.
    """
    records = [folder.trial(int(name.rpartition("/")[2])).record() for name in trials]
    loose = [record.name for record in records if record.config.fold is None]
    if loose or not records:
        raise RecordError(f"{loose[0] if loose else folder.path.name} is on no fold")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        _draw_panel(axes, records, *panel)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower left", ncols=8, frameon=False
    )
    figure.suptitle(_headline(records), x=0.01, ha="left", fontweight="bold", color=INK)
    out = folder.path / "folds" / f"{records[0].number:04d}.png"
    save_png(figure, out, dpi=120)
    return out


def _draw_panel(
    axes: Any, records: Sequence[TrialRecord], train: str, held: str, title: str
) -> None:
    """Draw a metric in training, dashed, and on the folds' own images; the means are thick."""
    for place, record in enumerate(records):
        colour, fold = COLOURS[place % len(COLOURS)], f"fold {record.config.fold}"
        for metric, style, label in ((train, "--", None), (held, "-", fold)):
            values = _curve(record, metric)
            axes.plot(_epochs(values), values, style, color=colour, lw=THIN, alpha=0.7, label=label)
        if best := record.best_epoch:
            axes.plot([best], [_curve(record, held)[best - 1]], "o", color=colour, ms=5)
    for metric, style, label in ((train, "--", "mean, training"), (held, "-", "mean, held out")):
        mean = _mean_curve(records, metric)
        axes.plot(_epochs(mean), mean, style, color=INK, lw=THICK, label=label)
    axes.set_title(f"{title} in training (dashed) and on the fold's own images", fontsize=10)
    axes.set_xlabel("epoch", color=INK)
    axes.grid(color="#DDDDDD", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=MUTED)
    axes.locator_params(axis="x", integer=True)


def _curve(record: TrialRecord, metric: str) -> list[float]:
    return [row.get(metric, float("nan")) for row in record.epochs]


def _mean_curve(records: Sequence[TrialRecord], metric: str) -> list[float]:
    """Return the mean over folds of the epochs that all have reached."""
    curves = zip(*(_curve(record, metric) for record in records), strict=False)
    return [float(np.mean(values)) for values in curves]


def _epochs(values: Sequence[float]) -> range:
    return range(1, len(values) + 1)


def _headline(records: Sequence[TrialRecord]) -> str:
    config = records[0].config
    return (
        f"{config.backbone}, {config.image_size} px, {len(records)} folds; the dot is the epoch "
        "that is kept"
    )
