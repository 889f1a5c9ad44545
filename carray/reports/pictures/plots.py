"""One picture of a study: what its trials learned, what the search found, what merging brought."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

from carray.drawing import plotting, save_png
from carray.errors import RecordError, counted
from carray.files import read_json
from carray.records import StudyFolder
from carray.reports.pictures.panels import (
    COLOURS,
    GRID,
    INK,
    MUTED,
    MetricAxis,
    draw_against_lr,
    draw_best_so_far,
    draw_curves,
    draw_ensemble,
)


def study_picture(folder: StudyFolder, out: Path | None = None) -> Path:
    """Draw what a study found as one PNG, 1,500 by 1,050 pixels; return its path.

    Learning curves, the best so far, score against learning rate, and what the newest ensemble
    brought on `test`; pruned trials are faded.

    Raises:
        RecordError: no trial of the study has ended an epoch.
    """
    study = folder.record()
    records = tuple(record for _, record in folder.trials() if record.epochs)
    if not records:
        raise RecordError(f"study {study.name!r} has no epoch to draw yet; wait for its first")
    backbones = sorted({record.config.backbone for record in records})
    view = MetricAxis(study, records, dict(zip(backbones, cycle(COLOURS), strict=False)))
    out = out or folder.path / "picture.png"
    with plotting(_style()):
        files = sorted(folder.ensembles.glob("*.json"), key=lambda file: file.stat().st_mtime)
        save_png(_draw(view, read_json(files[-1]) if files else None), out, dpi=150)
    return out


def _draw(view: MetricAxis, ensemble: dict[str, Any] | None) -> Any:
    """Return the figure: four panels under one headline and one legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7.2), layout="constrained")
    axes = figure.subplots(2, 2)
    draw_curves(axes[0][0], view)
    draw_best_so_far(axes[0][1], view)
    draw_against_lr(axes[1][0], view)
    draw_ensemble(axes[1][1], view, ensemble)
    figure.suptitle(_headline(view), fontsize=13, fontweight="bold", x=0.01, ha="left")
    _legend(figure, view)
    return figure


def _headline(view: MetricAxis) -> str:
    states = [str(record.state) for record in view.records if record.kind != "refit"]
    pruned, refits = states.count("pruned"), sum(r.kind == "refit" for r in view.records)
    summary = f"{counted(len(states), 'trial')}, {pruned} of them stopped early"
    return f"{view.study.name}: {summary}" + (f", {refits} trained again in full" if refits else "")


def _legend(figure: Any, view: MetricAxis) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, lw=2.5) for colour in view.colours.values()]
    names = list(view.colours)
    marks: list[tuple[str, str, str]] = [("o", MUTED, "complete"), ("o", "none", "stopped early")]
    if any(record.kind == "refit" for record in view.records):
        marks.append(("*", MUTED, "trained again (dashed)"))
    for shape, face, name in marks:
        handles.append(
            Line2D([], [], ls="", marker=shape, color=MUTED, markerfacecolor=face, markersize=8)
        )
        names.append(name)
    figure.legend(
        handles,
        names,
        loc="outside lower left",
        ncols=min(len(names), 5),
        frameon=False,
        fontsize=9,
    )


def _style() -> dict[str, Any]:
    return {
        "font.size": 9.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "xtick.color": INK,
        "ytick.color": INK,
        "figure.facecolor": "white",
    }
