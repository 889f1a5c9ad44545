"""Text report of a study: its trials as a table, and as JSON for machines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from shlex import quote
from textwrap import wrap
from typing import Any

from carray import metrics
from carray.analysis.leaders import leaders_of
from carray.analysis.search_gain import SearchGain, search_gain
from carray.costs import BUDGET_SPENT, TIME_BUDGET, Cost
from carray.errors import counted
from carray.files import is_held
from carray.json_file import to_jsonable
from carray.predictions.network_costs import front_rows
from carray.progress import seconds_text
from carray.records import StudyFolder, StudyRecord, TrialRecord, TrialState
from carray.reports.hints import in_runs, runs_option
from carray.reports.leaders import leaders_lines
from carray.reports.network_costs import study_front_lines
from carray.reports.readable import ReadableStudy, note_lines
from carray.reports.table import line_width, table

ROWS = 10
BACKBONE_WIDTH = 17
SHORT_HEADS = {  # where a name is too wide
    metrics.VAL_BALANCED_ACCURACY: "balanced",
    metrics.VAL_CALIBRATED_LOG_LOSS: "cal. loss",
}
INTERRUPTED = "interrupted"  # a trial that runs no more, in a study that can go on
COST_WIDTH = 9
BY_CLASS = ("F1:>7.3f", "bal.:>7.3f", "worst:>6.3f")


@dataclass(frozen=True)
class TrialRow:
    """One trial, as a table shows it."""

    trial: str
    number: int
    kind: str
    state: str
    reason: str
    backbone: str
    lr: float
    epochs: int
    best_epoch: int | None
    log_loss: float
    top1: float
    seconds: float
    refit_of: int | None
    seed: int
    cost: Cost | None = None
    """What its epochs cost; None where no lane trained it."""
    fold: int | None = None
    """Judged on this fold, not on `val`: not to be compared with the others."""
    calibrated_log_loss: float = math.nan
    """NaN in records of before 0.2."""
    top5: float = math.nan
    macro_f1: float = math.nan
    balanced_accuracy: float = math.nan
    worst_class: float = math.nan
    """Share that is right of the class that is recognised least; NaN in records of before 0.2."""

    def value_in(self, metric: str) -> float:
        """Return the value of an objective, as in `val/top1`."""
        return float(getattr(self, metric.rpartition("/")[2]))


def study_table(folder: StudyFolder) -> list[TrialRow]:
    """Return every trial, the best in the study's metric first, the valueless, then folds last."""
    objective = folder.record().objective

    def key(record: TrialRecord) -> tuple[bool, float, int]:
        return record.config.fold is not None, objective.key_of(record), record.number

    is_trained = trained_now(folder)
    rows = [row_of(record) for record in sorted(folder.records(), key=key)]
    return [replace(row, state=state_now(row.number, row.state, is_trained)) for row in rows]


def trained_now(folder: StudyFolder) -> Callable[[int], bool]:
    """Return what says of an unfinished trial, by its number, whether a process trains it.

    A single one is held by its own process, those of a search by the study's driver, asked once.
    """
    if folder.record().kind == "single":
        return lambda number: is_held(folder.trial(number).lock_file)
    is_running = folder.state() == "running"
    return lambda _: is_running


def state_now(number: int, state: str, is_trained: Callable[[int], bool]) -> str:
    """Return how a trial stands: one that nobody trains waits for the next call."""
    is_left = state == TrialState.RUNNING and not is_trained(number)
    return INTERRUPTED if is_left else state


def row_of(record: TrialRecord) -> TrialRow:
    """Return a record's row."""
    return TrialRow(
        trial=record.name,
        number=record.number,
        kind=record.kind,
        state=str(record.state),
        reason=record.reason,
        backbone=record.config.backbone,
        lr=record.config.optimizer.lr,
        epochs=len(record.epochs),
        best_epoch=record.best_epoch,
        log_loss=record.best(metrics.VAL_LOG_LOSS),
        calibrated_log_loss=record.best(metrics.VAL_CALIBRATED_LOG_LOSS),
        top1=record.best(metrics.VAL_TOP1),
        seconds=record.trained_seconds,
        refit_of=record.refit_of,
        seed=record.config.seed,
        cost=record.cost,
        fold=record.config.fold,
        top5=record.best(metrics.VAL_TOP5),
        macro_f1=record.best(metrics.VAL_MACRO_F1),
        balanced_accuracy=record.best(metrics.VAL_BALANCED_ACCURACY),
        worst_class=record.best(metrics.VAL_WORST_CLASS),
    )


def study_lines(
    folder: StudyFolder, rows: int = ROWS, *, wide: bool = True, is_report: bool = False
) -> list[str]:
    """Return the study's table: how it ended, its best trials, and what to type next.

    `wide`: with the scores by class, in 100 columns and not 80; `is_report`: `carray report` asks,
    and needn't be told of itself.
    """
    folder = ReadableStudy.of(folder)
    study, table = study_now(folder), study_table(folder)
    lines = [headline(study, table), ""]
    lines += table_lines(table[:rows], study.metric, wide=wide)
    if len(table) > rows:
        lines.append(f"  and {len(table) - rows} more")
    for cause in _failures(table):
        lines += wrap(cause, line_width(), initial_indent="  ", subsequent_indent="    ")
    if front := study_front_lines(folder):
        lines += ["", *front]
    if leaders := leaders_of(folder):
        lines += ["", *(line for text in leaders_lines(leaders) for line in _wrapped(text))]
    if gain := search_gain(folder):
        lines += ["", *gain_lines(gain)]
    lines += note_lines(folder.unreadable)
    runs, on_folds = runs_option(folder.path.parents[1]), _are_folds_whole(folder, table)
    return [*lines, "", *next_lines(study, table, runs, is_report=is_report, on_folds=on_folds)]


def _are_folds_whole(folder: StudyFolder, table: Sequence[TrialRow]) -> bool:
    if not any(row.fold is not None for row in table):
        return False
    from carray.analysis.cross_validation import has_whole_folds  # slow to import

    return has_whole_folds(folder)


def study_now(folder: StudyFolder) -> StudyRecord:
    """Return the study's record with the state that it is really in."""
    return folder.record().model_copy(update={"state": folder.state()})


def gain_lines(gain: SearchGain) -> list[str]:
    """Say what the search brought over its own first recipe, and what each of them cost."""
    first, own = (f"trial {names[0].rpartition('/')[2]}" for names in (gain.best, gain.recipe))
    best = first if gain.members == 1 else f"the best {gain.members} trials"
    seeds = own if gain.members == 1 else f"{gain.members} seeds of the recipe"
    change = f"{-gain.gain.value:+.3f} [{-gain.gain.high:+.3f}, {-gain.gain.low:+.3f}]"
    on = f"log-loss on {counted(gain.images, f'{gain.split} image')} {gain.best_loss:.3f}"
    text = "the search against its first recipe, refits aside: "
    if set(gain.best) == set(gain.recipe):
        text += f"nothing that it tried came out better than {seeds} ({on})"
    else:
        text += f"{on} for {best}, {gain.recipe_loss:.3f} for {seeds}: {change}, "
        text += f"p = {gain.p:.2g}: {gain.verdict}; "
        text += f"top-1 {gain.best_top1:.3f}, {gain.recipe_top1:.3f}, p = {gain.top1_p:.2g}"
    notes = f"{seconds_text(gain.best_seconds)} of training against "
    notes += seconds_text(gain.recipe_seconds)
    if gain.seed_spread is not None:
        notes += f"; seeds of the recipe differ by {gain.seed_spread:.3f} on val"
    if gain.split == "val" and set(gain.best) != set(gain.recipe):
        notes += "; val also chose the best trials, so they look better than they are"
    return [*_wrapped(text), *_wrapped(f"  {notes}")]


def _wrapped(text: str) -> list[str]:
    return wrap(text, line_width(), subsequent_indent="  ")


def headline(study: StudyRecord, table: Sequence[TrialRow]) -> str:
    """Say how many trials ended how, and how long it took."""
    searched = [row for row in table if row.kind != "refit" and row.fold is None]
    states = Counter(row.state for row in searched if row.reason != TIME_BUDGET)
    by_budget = sum(row.reason == TIME_BUDGET for row in searched)
    refits = sum(row.kind == "refit" for row in table)
    shown = (*TrialState, INTERRUPTED)
    counts = [f"{states[state]} {state}" for state in shown if states[state]]
    counts += [counted(refits, "refit")] if refits else []
    folds = sum(row.fold is not None for row in table)
    counts += [f"{folds} on folds"] if folds else []
    took = ""
    if study.worked_seconds is not None:
        took = f", {seconds_text(study.worked_seconds)}"
    counts += [f"{by_budget} stopped by the budget"] if by_budget else []
    is_spent = study.standing == BUDGET_SPENT
    if is_spent and study.trials > len(searched):
        counts.append(f"{study.trials - len(searched)} never opened")
    cost = f", {study.cost}" if study.cost else ""
    stands = "has its budget spent" if is_spent else f"is {study.state}"
    return f"study {study.name} {stands}: {', '.join(counts) or 'no trials'}{took}{cost}"


def table_lines(rows: Sequence[TrialRow], metric: str, *, wide: bool = True) -> list[str]:
    """Return aligned lines, header first; `wide`: with the scores by class."""
    if not rows:
        return ["no trial has been recorded yet"]
    first = metric if metric != metrics.VAL_TOP1 else metrics.VAL_LOG_LOSS
    left, top1 = (
        f"{SHORT_HEADS.get(spelt, metrics.SHORT_NAMES[spelt])}{'*' if metric == spelt else ''}"
        for spelt in (first, metrics.VAL_TOP1)
    )
    currency = next((row.cost.currency for row in rows if row.cost), "")  # of those with a price
    further = {currency: [row.cost and row.cost.money for row in rows]} if currency else {}
    if wide and any(row.cost and row.cost.energy_kwh for row in rows):
        further["kWh"] = [row.cost and row.cost.energy_kwh for row in rows]
    width = BACKBONE_WIDTH - (COST_WIDTH if further else 0)
    columns = (
        *("trial:<6", "state:<12", f"backbone:<{width}", "lr:>8.2g", "best/epochs:>12"),
        *(f"{left}:>11.4f", f"{top1}:>7.4f", *(BY_CLASS if wide else ()), "time:>7"),
        *(f"{name}:>{COST_WIDTH}.3f" for name in further),
    )
    cells = (
        _cells(row, first, wide) + tuple(column[place] for column in further.values())
        for place, row in enumerate(rows)
    )
    return table(columns, cells, spare=("kWh", "worst", "bal.", "F1", "lr"), rule=True)


def _cells(row: TrialRow, metric: str, wide: bool) -> tuple[object, ...]:
    refit = f"<{row.refit_of:04d}" if row.refit_of is not None else ""
    state = f"refit{refit}" if row.kind == "refit" and row.state == "complete" else row.state
    state = f"fold {row.fold}" if row.fold is not None and row.state == "complete" else state
    return (
        *(f"{row.number:04d}", state, row.backbone),
        *(row.lr, f"{row.best_epoch or '-'}/{row.epochs}"),
        *(_short(row.value_in(metric)), _short(row.top1)),
        *((row.macro_f1, row.balanced_accuracy, row.worst_class) if wide else ()),
        seconds_text(row.seconds),
    )


def _short(value: float) -> float | str:
    return f"{value:.3g}" if abs(value) >= 1e4 else value  # a column is 11 wide


def _failures(table: Sequence[TrialRow]) -> list[str]:
    """Say each cause of failure once, with how many trials it ended."""
    broken = ("failed", "infeasible", "collapsed")
    causes = Counter((row.state, _cause(row.reason)) for row in table if row.state in broken)
    return [f"{count} {state}: {why or 'no cause given'}" for (state, why), count in causes.items()]


def _cause(reason: str) -> str:
    """Return what a reason names as its likely cause, which fits a line; else all of it."""
    return reason.rpartition("likely cause: ")[2]


def next_lines(
    study: StudyRecord,
    table: Sequence[TrialRow],
    runs: str,
    *,
    is_report: bool = False,
    on_folds: bool = False,
) -> list[str]:
    """Return the commands that make sense now.

    `runs` is what tells them where to look; `on_folds`: a configuration is complete on every fold.
    """
    superseded = {(row.refit_of, row.seed) for row in table if row.state == "complete"}
    votes = [row for row in table if row.state == "complete" and row.fold is None]
    usable = sum((row.number, row.seed) not in superseded for row in votes)
    usable += sum(
        row.state == "pruned" and row.kind == "search" and row.epochs > 0 for row in table
    )
    name = quote(study.name)
    lines = []
    if usable:
        lines.append(f"  carray ensemble --study {name} --top {min(3, usable)}{runs}")
    if not is_report:
        lines.append(f"  carray report --study {name}{runs}")
    if on_folds:
        lines.append(f"  carray folds --study {name}{runs}")
    lines.append(f"  carray ui{runs}")
    if study.standing == BUDGET_SPENT and study.command:
        lines.append(f"  {in_runs(study.command, runs)}")
    return ["next:", *lines]


def study_json(folder: StudyFolder) -> dict[str, Any]:
    """Return the study and all its trials as JSON-able data; unknown numbers are None."""
    folder = ReadableStudy.of(folder)
    found: dict[str, Any] = to_jsonable(
        {
            "study": study_now(folder),
            "folder": folder.path,
            "trials": study_table(folder),
            "front": front_rows(folder),
            "search_gain": search_gain(folder),
            "leaders": leaders_of(folder),
            "unreadable": folder.unreadable,
        }
    )
    return found
