"""A picture of milliseconds against log-loss: single trials, and the front of ensembles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from carray.drawing import plotting, save_png
from carray.ensemble.front import Front
from carray.errors import counted
from carray.reports.pictures.panels import COLOURS, INK, MUTED


@plotting()
def front_picture(found: Front, out: Path | None = None) -> Path:
    """Draw the front as a PNG, its points with 95 % intervals; return its path."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    alone = [(trial.milliseconds, trial.log_loss) for trial in found.trials]
    axes.plot(*zip(*alone, strict=True), "o", color=MUTED, alpha=0.5, ms=5, label="one trial")
    times = [point.milliseconds for point in found.points]
    losses = [point.log_loss for point in found.points]
    errors = [
        [loss.value - loss.low for loss in losses],
        [loss.high - loss.value for loss in losses],
    ]
    values = [loss.value for loss in losses]
    style: dict[str, Any] = {"color": COLOURS[0], "lw": 1.8, "capsize": 3, "marker": "o"}
    label = "the best within so much time"
    axes.errorbar(times, values, yerr=errors, label=label, **style)
    for point in found.points:
        where = point.milliseconds, point.log_loss.value
        axes.annotate(str(len(point.trials)), where, (5, 5), textcoords="offset points", color=INK)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([float(f"{time:.2g}") for time in times])
    axes.set_xlabel(f"milliseconds for one image, {found.device}", color=INK)
    axes.set_ylabel(f"log-loss on {counted(found.images, 'image')} of {found.split}", color=INK)
    axes.legend(frameon=False, title="numbers: members")
    title = f"{' + '.join(found.studies)}: what each further millisecond brings"
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", color=INK)
    out = out or found.folder / "pareto.png"
    save_png(figure, out, dpi=120)
    return out
