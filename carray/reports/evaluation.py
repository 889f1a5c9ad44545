"""Reports of an evaluation: lines, a table of classes as CSV, and a reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from carray.analysis.evaluation import Evaluation
from carray.drawing import drawn_or_none, plotting, save_png
from carray.errors import counted
from carray.files import write_csv
from carray.predictions.calibration import Calibration
from carray.predictions.levels import LevelScore
from carray.predictions.per_class import ClassScore
from carray.predictions.statistics import Interval
from carray.predictions.test_access import access_text
from carray.reports.pictures.panels import COLOURS, GRID, INK, MUTED
from carray.reports.table import table, wrapped

SCORES = ("(95 % intervals):<26", ":>28.4f")
CLASSES = (
    *("class:<31", "images:>7", "taken for it:>13"),
    *("precision:>11.3f", "recall:>8.3f", "F1 (95 %):>27.3f"),
)
MEANS = ("mean over:<26", "precision:>24.3f", "recall:>24.3f", "F1:>24.3f")
COLUMNS = (
    "class",
    "images",
    "predicted",
    *(f"{n}{e}" for n in ("precision", "recall", "f1") for e in ("", "_low", "_high")),
)
SHOWN_CLASSES = 10
CONFIDENT = 0.02  # mean confidence over top-1 that is worth a word
LEVELS = ("right up to:<26", "of:>6", "accuracy:>28.4f", "wrong in it:>14")


def write_evaluation(found: Evaluation, out: Path) -> Evaluation:
    """Write `per_class.csv` and `reliability.png` into a folder."""
    file = out / "per_class.csv"
    write_csv(file, COLUMNS, (_csv_row(each) for each in found.per_class.classes))
    picture = drawn_or_none(lambda: reliability_picture(found, out / "reliability.png"))
    return replace(found, table=file, picture=picture)


def _csv_row(score: ClassScore) -> list[object]:
    shares = (score.precision, score.recall, score.f1)
    cells = [f"{x:.6f}" if x == x else "" for s in shares for x in (s.value, s.low, s.high)]
    return [score.name, score.images, score.predicted, *cells]


def evaluation_lines(found: Evaluation, all_classes: bool = False) -> list[str]:
    """Return what a person should know, as lines of at most 100 columns."""
    per_class = found.per_class
    scores = (
        ("top-1", found.scores.top1),
        ("top-5", found.top5),
        ("log-loss", found.scores.log_loss),
        ("balanced accuracy", per_class.balanced_accuracy),
    )
    means = (("classes (macro)", per_class.macro), ("images (weighted)", per_class.weighted))
    lines = [
        f"{found.model} on {counted(found.images, 'image')} of {found.on}",
        "",
        *table(SCORES, scores),
        "",
        *table(MEANS, ((name, one.precision, one.recall, one.f1) for name, one in means)),
        "",
        *_class_lines(found, all_classes),
    ]
    if found.levels:
        lines += ["", *level_lines(found.levels, found.wrong_otherwise)]
    lines += ["", _calibration_text(found.calibration, found.scores.top1)]
    if found.models_that_opened_test:
        lines.append(access_text(found.models_that_opened_test))
    lines += [f"note: {note}" for note in found.notes]
    lines += [
        f"{what}: {file}"
        for what, file in (("table", found.table), ("picture", found.picture))
        if file
    ]
    return [part for line in lines for part in wrapped(line)]


def _class_lines(found: Evaluation, all_classes: bool) -> list[str]:
    """Return the classes, of many the worst."""
    classes = sorted(found.per_class.classes, key=lambda each: (each.f1.value, -each.images))
    shown = classes if all_classes else classes[:SHOWN_CLASSES]
    rows = (
        (each.name, each.images, each.predicted, each.precision.value, each.recall.value, each.f1)
        for each in shown
    )
    lines = table(CLASSES, rows, spare=("taken for it",))
    more = len(classes) - len(shown)
    worst = found.per_class.worst
    lines += [f"and {counted(more, 'more class')}, all better: --all, or the table"] if more else []
    return [*lines, f"worst class: {worst.name}, {_share(worst.recall, worst.images)} right"]


def _share(share: Interval, images: int) -> str:
    return f"{round(share.value * images)} of {images}"


def _calibration_text(found: Calibration, top1: Interval) -> str:
    """Say how far confidences can be believed."""
    gap = found.confidence - top1.value
    word = "about right" if abs(gap) < CONFIDENT else "overconfident" if gap > 0 else "too modest"
    verdict = (
        "more than chance explains" if found.error > found.by_chance else "which chance explains"
    )
    return (
        f"calibration: mean confidence {found.confidence:.3f} ({word}), expected calibration error "
        f"{found.error:.4f}, {verdict} (up to {found.by_chance:.4f})"
    )


@plotting()
def reliability_picture(found: Evaluation, file: Path) -> Path:
    """Draw confidence against the share that is right, and how many images have which."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 6.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    _draw_bins(upper, found.calibration)
    bins = found.calibration.bins
    lower.bar([each.confidence for each in bins], [each.images for each in bins], 0.04, color=MUTED)
    lower.set_xlabel("confidence of the answer", color=INK)
    lower.set_ylabel("images", color=INK)
    for axes in (upper, lower):
        axes.grid(color=GRID, lw=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(0, 1)
    title = f"{found.model}: {counted(found.images, 'image')} of {found.on}"
    figure.suptitle(title[-70:], fontweight="bold", x=0.01, ha="left", fontsize=10, color=INK)
    save_png(figure, file, dpi=150)
    return file


def _draw_bins(axes: Any, found: Calibration) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls="--", label="as it should be")
    bins = found.bins
    shares = [each.right for each in bins]
    reach = [
        [share.value - share.low for share in shares],
        [share.high - share.value for share in shares],
    ]
    places = [each.confidence for each in bins]
    axes.errorbar(
        places,
        [share.value for share in shares],
        reach,
        fmt="o-",
        color=COLOURS[0],
        capsize=3,
        label="share that is right (95 %)",
    )
    axes.set_ylim(0, 1)
    axes.set_ylabel("share that is right", color=INK)
    axes.set_title(
        f"expected calibration error {found.error:.3f} (chance: up to {found.by_chance:.3f})",
        fontsize=9,
        loc="left",
        color=INK,
    )
    axes.legend(frameon=False, loc="upper left", fontsize=9)


def level_lines(levels: Sequence[LevelScore], otherwise: int) -> list[str]:
    """Return accuracy by make, model and so on, and the mistakes told apart."""
    rows = ((one.level, one.groups, one.accuracy, one.wrong) for one in levels)
    lines = table(LEVELS, rows)
    return [*lines, f"wrong otherwise: {otherwise}"] if otherwise else lines
