"""The panels of a study's picture: each takes axes and the view, and draws one finding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from carray import metrics
from carray.errors import counted
from carray.predictions.statistics import Interval, verdict_of
from carray.records import StudyRecord, TrialRecord

LABELS = {
    metrics.VAL_LOG_LOSS: "validation log-loss",
    metrics.VAL_CALIBRATED_LOG_LOSS: "validation log-loss, calibrated",
    metrics.VAL_TOP1: "validation top-1",
    metrics.VAL_TOP5: "validation top-5",
    metrics.VAL_MACRO_F1: "validation macro F1",
    metrics.VAL_BALANCED_ACCURACY: "validation balanced accuracy",
}
COLOURS = (  # Okabe and Ito's, told apart by colour-blind readers too, then more of the same kind
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
    *("#6A3D9A", "#8C564B", "#1B7837", "#B2182B", "#35978F", "#7F7F7F"),
)
INK, GRID, MUTED = "#222222", "#DDDDDD", "#8A8A8A"
FADED = 0.35
NAME = 28  # letters of a model that its panel has room for


@dataclass(frozen=True)
class MetricAxis:
    """What all panels share."""

    study: StudyRecord
    records: tuple[TrialRecord, ...]
    colours: dict[str, str]

    @property
    def metric(self) -> str:
        """What the study optimises."""
        return self.study.metric

    @property
    def label(self) -> str:
        """The metric as an axis says it."""
        return LABELS.get(self.metric, self.metric)

    @property
    def minimises(self) -> bool:
        """Whether less is better."""
        return self.study.objective.direction == "minimize"

    def colour(self, record: TrialRecord) -> str:
        """Return the colour of the trial's backbone."""
        return self.colours[record.config.backbone]

    def value(self, record: TrialRecord) -> float:
        """Return the metric at the trial's best epoch."""
        return record.best(self.metric)


def draw_curves(axes: Any, view: MetricAxis) -> None:
    """Draw each trial's metric by epoch; a dot is the epoch whose weights are kept."""
    for record in sorted(view.records, key=is_prominent):
        values = [row.get(view.metric, math.nan) for row in record.epochs]
        strong = is_prominent(record)
        axes.plot(
            range(1, len(values) + 1),
            values,
            color=view.colour(record),
            alpha=0.95 if strong else FADED,
            linewidth=1.6 if strong else 1.0,
            linestyle="--" if record.kind == "refit" else "-",
        )
        best = record.best_epoch
        if best and (strong or len(values) == 1):
            alpha = 0.95 if strong else FADED
            axes.plot(best, values[best - 1], "o", color=view.colour(record), ms=3.5, alpha=alpha)
    _titled(axes, "What each trial learned", "epoch", view.label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _fit_y(axes, view, [r.get(view.metric, math.nan) for t in view.records for r in t.epochs])


def draw_best_so_far(axes: Any, view: MetricAxis) -> None:
    """Draw each trial's value by the time it ended, and the best so far as steps."""
    from matplotlib.ticker import MaxNLocator

    ended = sorted((r for r in view.records if r.ended_at), key=lambda r: r.ended_at or 0.0)
    ended = [record for record in ended if math.isfinite(view.value(record))]
    if not ended:
        _nothing(axes, "No trial has ended yet")
        return
    worked = worked_times(view.records, [record.ended_at or 0.0 for record in ended])
    scale, unit = _time_unit(max(worked))
    times = [seconds / scale for seconds in worked]
    values = [view.value(record) for record in ended]
    for time, record in zip(times, ended, strict=True):
        _dot(axes, view, record, time)
    best, steps = math.nan, []
    for value in values:
        best = value if view.study.objective.is_better(value, best) else best
        steps.append(best)
    axes.step([*times, times[-1] * 1.02], [*steps, steps[-1]], where="post", color=INK, lw=1.4)
    axes.annotate(
        f"{steps[-1]:.3f}",
        (times[-1], steps[-1]),
        xytext=(0, -13 if view.minimises else 6),
        textcoords="offset points",
        ha="right",
        fontweight="bold",
        fontsize=9,
    )
    _titled(axes, "The best so far", f"{unit} of the search", view.label)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    _fit_y(axes, view, values)


def worked_times(records: Sequence[TrialRecord], at: Sequence[float]) -> list[float]:
    """Return how long any trial had run by each moment of `at`: pauses of the study don't count."""
    spans = sorted((r.started_at, r.ended_at or max(at)) for r in records if r.started_at)
    joined: list[list[float]] = []
    for start, end in spans:
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return [sum(max(0.0, min(end, one) - start) for start, end in joined) for one in at]


def draw_against_lr(axes: Any, view: MetricAxis) -> None:
    """Draw each trial's best value against its learning rate."""
    for record in view.records:
        _dot(axes, view, record, record.config.optimizer.lr)
    axes.set_xscale("log")
    axes.minorticks_off()
    ticks = _lr_ticks([record.config.optimizer.lr for record in view.records])
    axes.set_xticks(ticks, [f"{tick:.0e}".replace("e-0", "e-") for tick in ticks])
    _titled(axes, "Which learning rate suits which backbone", "learning rate", view.label)
    _fit_y(axes, view, [view.value(record) for record in view.records])


def _lr_ticks(rates: Sequence[float]) -> list[float]:
    low, high = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))
    steps = (1, 3) if high - low <= 3 else (1,)
    inside = [
        factor * 10.0**power
        for power in range(low, high + 1)
        for factor in steps
        if min(rates) * 0.75 <= factor * 10.0**power <= max(rates) * 1.34
    ]
    return inside or [min(rates)]


def draw_ensemble(axes: Any, view: MetricAxis, ensemble: dict[str, Any] | None) -> None:
    """Draw the ensemble against the best single trial, on test, with 95 % intervals."""
    test = (ensemble or {}).get("test")
    if ensemble is None or not test:
        _nothing(axes, "No ensemble has been measured on test yet\n(carray ensemble)")
        return
    metric = "log_loss" if view.metric in metrics.LOG_LOSSES else "top1"
    bars = (("best single trial", test["single"]), ("ensemble", test["ensemble"]))
    for place, (name, scores) in enumerate(bars):
        found = scores[metric]
        colour = MUTED if place == 0 else COLOURS[0]
        spread = [[found["value"] - found["low"]], [found["high"] - found["value"]]]
        axes.errorbar(
            [found["value"]], [1 - place], xerr=spread, fmt="o", color=colour, capsize=5, lw=2
        )
        axes.annotate(
            f"{name}  {found['value']:.3f}",
            (found["value"], 1 - place),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=10,
            fontweight="bold" if place else "normal",
        )
    into = f" into {ensemble['name'][:NAME]}" if "name" in ensemble else ""
    _titled(axes, f"What merging{into} brought: {_verdict(test, metric)}", "", "")
    axes.set_xlabel(ensemble_label(test, metric))
    axes.set_ylim(-0.6, 1.7)
    axes.set_yticks([])
    axes.grid(axis="y", visible=False)


def ensemble_label(test: dict[str, Any], shown: str) -> str:
    """Say under the intervals of `shown` what they are, and each figure's own p-value."""
    names = {"log_loss": "log-loss", "top1": "top-1"}
    (other,) = set(names) - {shown}
    first, last = (test[side][other]["value"] for side in ("single", "ensemble"))
    return (
        f"test {names[shown]}, 95 % interval, paired test p = {test[f'{shown}_p']:.2g}, "
        f"{counted(test['images'], 'image')}\n{names[other]} {first:.3f} -> {last:.3f}, "
        f"p = {test[f'{other}_p']:.2g}"
    )


def _verdict(test: dict[str, Any], metric: str) -> str:
    """Return the verdict of the figure that is drawn."""
    gain = test.get(f"{metric}_gain")
    if gain is None:
        return str(test["verdict"])
    return verdict_of(Interval(**gain), test[f"{metric}_p"])


def _dot(axes: Any, view: MetricAxis, record: TrialRecord, x: float) -> None:
    """Draw one trial: filled if complete, hollow and faded if it was stopped, a star if refit."""
    colour, strong = view.colour(record), is_prominent(record)
    axes.plot(
        [x],
        [view.value(record)],
        "*" if record.kind == "refit" else "o",
        markersize=11 if record.kind == "refit" else 6,
        color=colour,
        markerfacecolor=colour if strong else "none",
        markeredgecolor="white" if strong else colour,
        markeredgewidth=0.6 if strong else 1.0,
        alpha=1.0 if strong else 0.6,
    )


def is_prominent(record: TrialRecord) -> bool:
    """Say whether a trial is drawn strongly: it ran to its end, or still runs."""
    return str(record.state) in ("complete", "running")


def _titled(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _nothing(axes: Any, why: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, why, ha="center", va="center", color=MUTED, transform=axes.transAxes)


def _fit_y(axes: Any, view: MetricAxis, values: Sequence[float]) -> None:
    """Leave out a twentieth of many values, the worst, which would press all others flat."""
    finite = sorted((v for v in values if math.isfinite(v)), reverse=not view.minimises)
    if not finite:
        return
    inside = finite[: math.ceil(0.95 * len(finite))]
    low, cut = min(inside), max(inside)
    pad = 0.12 * ((cut - low) or abs(cut) or 1.0)
    axes.set_ylim(low - pad, cut + pad)


def _time_unit(seconds: float) -> tuple[float, str]:
    if seconds > 2 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if seconds > 120 else (1.0, "seconds")
