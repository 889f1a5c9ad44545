"""The curves of one configuration on every fold: training loss, validation loss and accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from carray import metrics
from carray.drawing import matplotlib, save_png
from carray.errors import RecordError
from carray.records import StudyFolder, TrialRecord
from carray.reports.panels import COLOURS, INK, MUTED

PANELS = (
    (metrics.TRAIN_LOSS, "training loss"),
    (metrics.VAL_LOG_LOSS, "log-loss on the fold's own images"),
    (metrics.VAL_TOP1, "top-1 on the fold's own images"),
)


def folds_picture(folder: StudyFolder, trials: Sequence[str], out: Path | None = None) -> Path:
    """Draw the curves of `trials` (`STUDY/NUMBER`), one line a fold, as a PNG; return its path.

    Raises:
        RecordError: a trial isn't there, or is on no fold.
    """
    records = [folder.trial(int(name.rpartition("/")[2])).record() for name in trials]
    loose = [record.name for record in records if record.config.fold is None]
    if loose or not records:
        raise RecordError(f"{loose[0] if loose else folder.path.name} is on no fold")
    matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.8), layout="constrained")
    for axes, (metric, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for place, record in enumerate(records):
            values = [row.get(metric, float("nan")) for row in record.epochs]
            epochs = range(1, len(values) + 1)
            colour = COLOURS[place % len(COLOURS)]
            axes.plot(epochs, values, color=colour, lw=1.8, label=f"fold {record.config.fold}")
            best = record.best_epoch
            if best and metric != metrics.TRAIN_LOSS:
                axes.plot([best], [values[best - 1]], "o", color=colour, ms=6)
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_xlabel("epoch", color=INK)
        axes.grid(color="#DDDDDD", lw=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=MUTED)
        axes.locator_params(axis="x", integer=True)
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower left", ncols=8, frameon=False
    )
    figure.suptitle(_headline(records), x=0.01, ha="left", fontweight="bold", color=INK)
    out = out or folder.path / "folds" / f"{records[0].number:04d}.png"
    save_png(figure, out, dpi=120)
    return out


def _headline(records: Sequence[TrialRecord]) -> str:
    config = records[0].config
    return (
        f"{config.backbone}, {config.image_size} px, {len(records)} folds; the dot is the epoch "
        "that is kept"
    )
