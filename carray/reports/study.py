"""Text report of a study: its trials as a table, and as JSON for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from shlex import quote
from textwrap import wrap
from typing import Any

from carray import metrics
from carray.costs import BUDGET_SPENT, TIME_BUDGET, Cost
from carray.jsonable import to_jsonable
from carray.progress import seconds_text
from carray.records import StudyFolder, StudyRecord, TrialRecord, TrialState
from carray.reports.hints import runs_option
from carray.reports.table import table

WIDTH = 100
ROWS = 10
BACKBONE_WIDTH = 26
MONEY_WIDTH = 9


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
    cost: Cost | None = None
    """What its epochs cost; None where no lane trained it."""
    fold: int | None = None
    """Judged on this fold, not on `val`: not to be compared with the others."""


def study_table(folder: StudyFolder) -> list[TrialRow]:
    """Return every trial, the best in the study's metric first, the valueless, then folds last."""
    objective = folder.record().objective

    def key(record: TrialRecord) -> tuple[bool, float, int]:
        return record.config.fold is not None, objective.key_of(record), record.number

    return [row_of(record) for record in sorted(folder.records(), key=key)]


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
        top1=record.best(metrics.VAL_TOP1),
        seconds=sum(row.get(metrics.EPOCH_SECONDS, 0.0) for row in record.epochs),
        refit_of=record.refit_of,
        cost=record.cost,
        fold=record.config.fold,
    )


def study_lines(folder: StudyFolder, rows: int = ROWS) -> list[str]:
    """Return the study's table: how it ended, its best trials, and what to type next."""
    study, table = folder.record(), study_table(folder)
    lines = [headline(study, table), ""]
    lines += table_lines(table[:rows], study.metric)
    if len(table) > rows:
        lines.append(f"  and {len(table) - rows} more")
    for cause in _failures(table):
        lines += wrap(cause, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return [*lines, "", *next_lines(study, table, runs_option(folder.path.parents[1]))]


def headline(study: StudyRecord, table: Sequence[TrialRow]) -> str:
    """Say how many trials ended how, and how long it took."""
    searched = [row for row in table if row.kind != "refit" and row.fold is None]
    states = Counter(row.state for row in searched if row.reason != TIME_BUDGET)
    by_budget = sum(row.reason == TIME_BUDGET for row in searched)
    refits = sum(row.kind == "refit" for row in table)
    told = [f"{states[state]} {state}" for state in TrialState if states[state]]
    told += [f"{refits} refit{'s' * (refits > 1)}"] if refits else []
    folds = sum(row.fold is not None for row in table)
    told += [f"{folds} on folds"] if folds else []
    took = ""
    if study.ended_at and study.started_at:
        took = f", {seconds_text(study.ended_at - study.started_at)}"
    told += [f"{by_budget} stopped by the budget"] if by_budget else []
    is_spent = study.standing == BUDGET_SPENT
    if is_spent and study.trials > len(searched):
        told.append(f"{study.trials - len(searched)} never opened")
    cost = f", {study.cost}" if study.cost else ""
    stands = "has its budget spent" if is_spent else f"is {study.state}"
    return f"study {study.name} {stands}: {', '.join(told) or 'no trials'}{took}{cost}"


def table_lines(rows: Sequence[TrialRow], metric: str) -> list[str]:
    """Return aligned lines, header first."""
    if not rows:
        return ["no trial has been recorded yet"]
    log_loss, top1 = (
        f"{name}{'*' if metric == spelt else ''}"
        for name, spelt in (("log-loss", metrics.VAL_LOG_LOSS), ("top-1", metrics.VAL_TOP1))
    )
    currency = next((row.cost.currency for row in rows if row.cost), "")  # of those with a price
    width = BACKBONE_WIDTH - (MONEY_WIDTH if currency else 0)
    columns = (
        *("trial:<6", "state:<12", f"backbone:<{width}", "lr:>9.2g", "epochs:>8"),
        *("best at:>8", f"{log_loss}:>11.4f", f"{top1}:>9.4f", "time:>9"),
        *([f"{currency}:>{MONEY_WIDTH}.3f"] if currency else []),
    )
    cells = (
        _cells(row, width) + ((row.cost and row.cost.money,) if currency else ()) for row in rows
    )
    header, *lines = table(columns, cells)
    return [header, "-" * len(header), *lines]


def _cells(row: TrialRow, width: int) -> tuple[object, ...]:
    refit = f"<{row.refit_of:04d}" if row.refit_of is not None else ""
    state = f"refit{refit}" if row.kind == "refit" and row.state == "complete" else row.state
    state = f"fold {row.fold}" if row.fold is not None and row.state == "complete" else state
    backbone = row.backbone
    if len(backbone) >= width:
        backbone = backbone[: width - 2] + "…"
    return (
        *(f"{row.number:04d}", state, backbone, row.lr, row.epochs, row.best_epoch),
        *(_short(row.log_loss), _short(row.top1), seconds_text(row.seconds)),
    )


def _short(value: float) -> float | str:
    return f"{value:.3g}" if abs(value) >= 1e5 else value  # a column is 11 wide


def _failures(table: Sequence[TrialRow]) -> list[str]:
    """Say each cause of failure once, with how many trials it ended."""
    broken = ("failed", "infeasible", "collapsed")
    causes = Counter((row.state, _cause(row.reason)) for row in table if row.state in broken)
    return [f"{count} {state}: {why or 'no cause given'}" for (state, why), count in causes.items()]


def _cause(reason: str) -> str:
    """Return what a reason names as its likely cause, which fits a line; else all of it."""
    return reason.rpartition("likely cause: ")[2]


def next_lines(study: StudyRecord, table: Sequence[TrialRow], runs: str) -> list[str]:
    """Return the commands that make sense now; `runs` is what tells them where to look."""
    superseded = {row.refit_of for row in table if row.state == "complete"}
    votes = [row for row in table if row.state == "complete" and row.fold is None]
    usable = sum(row.number not in superseded for row in votes)
    usable += sum(
        row.state == "pruned" and row.kind == "search" and row.epochs > 0 for row in table
    )
    name = quote(study.name)
    lines = [f"  carray report --study {name}{runs}", f"  carray ui{runs}"]
    if usable:
        lines.insert(0, f"  carray ensemble --study {name} --top {min(3, usable)}{runs}")
    if len(votes) < sum(row.state == "complete" for row in table):
        lines.insert(-1, f"  carray folds --study {name}{runs}")
    if study.standing == BUDGET_SPENT and study.command:
        lines.append(f"  {study.command}")
    return ["next:", *lines]


def study_json(folder: StudyFolder) -> dict[str, Any]:
    """Return the study and all its trials as JSON-able data; unknown numbers are None."""
    found: dict[str, Any] = to_jsonable(
        {"study": folder.record(), "folder": folder.path, "trials": study_table(folder)}
    )
    return found
