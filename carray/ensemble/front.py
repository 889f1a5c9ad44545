"""`find_front`: what each further millisecond brings, from one small trial to a whole ensemble."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carray import metrics
from carray.ensemble.budget import Budget, MeasuredPool
from carray.ensemble.build import measured_pool
from carray.ensemble.cross_fit import RuleScore, score_rule
from carray.ensemble.pool import Pool, find_studies
from carray.ensemble.selection import SoftVote
from carray.json_file import JsonResult
from carray.predictions.logits import SplitPredictions
from carray.predictions.network_costs import Device
from carray.predictions.scores import log_loss, make_folds
from carray.predictions.statistics import Interval, scores_of
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.typing import Labels, Progress

STEPS = 12  # budgets that are tried
MORE_DIGITS = 2  # of a budget, after the first


@dataclass(frozen=True)
class FrontPoint(JsonResult):
    """The best ensemble within some milliseconds, by images that didn't choose its members."""

    max_latency: float
    """Milliseconds that it was allowed; `--max-latency` packages it."""
    milliseconds: float
    mb: float
    trials: tuple[str, ...]
    log_loss: Interval
    top1: Interval


@dataclass(frozen=True)
class TimedTrial(JsonResult):
    """One trial alone."""

    trial: str
    milliseconds: float
    log_loss: float


@dataclass(frozen=True)
class Front(JsonResult):
    """Ensembles of which none is both quicker and better than another."""

    studies: tuple[str, ...]
    device: Device
    hardware: str
    split: str
    images: int
    points: tuple[FrontPoint, ...]
    """The quickest first."""
    trials: tuple[TimedTrial, ...]
    folder: Path
    """The first study's."""


def find_front(
    study: str | Sequence[str] | None = None,
    *,
    on: Device = "cpu",
    folds: bool = False,
    metric: str | None = None,
    runs: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Front:
    """Choose the best ensemble within each of some budgets of milliseconds; write no package.

    Members are chosen on `blend` (else `val`), and each ensemble is judged by cross-fitting: on
    images that didn't choose it. One that isn't better than a quicker one is left out.

    Raises:
        RecordError: no such study, or no trial with logits and weights.
        ConfigError: there is no such device.
    """
    where = RunsFolder.at(runs)
    folders = find_studies(where, study, False)
    pool = Pool.open(where, folders, metric, need_weights=True, folds=folds)
    measured = measured_pool(pool, folders, Budget(on=on), progress)
    labels = pool.labels.of(pool.split)
    predictions = SplitPredictions(measured.pool.candidates.trials, pool.split, labels)
    names = [trial.record.name for trial in predictions.candidates]
    alone = tuple(
        TimedTrial(name, measured.costs[name][0], log_loss(predictions.log_p(place), labels))
        for place, name in enumerate(names)
    )
    return Front(
        studies=tuple(folder.path.name for folder in folders),
        device=on,
        hardware=measured.hardware,
        split=pool.split,
        images=len(labels),
        points=tuple(_points(measured, predictions, pool.labels.of("val"), seed)),
        trials=alone,
        folder=folders[0].path,
    )


def _points(
    measured: MeasuredPool, predictions: SplitPredictions, val: Labels, seed: int
) -> list[FrontPoint]:
    folds, metric = make_folds(predictions.labels, seed), metrics.VAL_LOG_LOSS
    beside = predictions.beside(val)
    names = [trial.record.name for trial in predictions.candidates]
    points: list[FrontPoint] = []
    best = math.inf
    for limit in _limits(measured, predictions):
        budget = Budget(limit, on=measured.budget.on)
        rules = measured.rule(budget), SoftVote((_first_within(measured, budget, names),))
        scores = (score_rule(rule, predictions, folds, metric, beside) for rule in rules)
        score = min(scores, key=_log_loss)
        if score.log_loss >= best:
            continue
        best = score.log_loss
        trials = tuple(names[member] for member in score.blend.members)
        own = scores_of(score.losses, score.right, seed)
        cost = measured.cost(trials)
        points.append(FrontPoint(limit, *cost, trials, own.log_loss, own.top1))
    return points


def _first_within(measured: MeasuredPool, budget: Budget, names: Sequence[str]) -> int:
    """Return the place of the trial that `val` holds for the best within a budget."""
    return next(p for p, name in enumerate(names) if budget.holds(*measured.costs[name]))


def _log_loss(score: RuleScore) -> float:
    return score.log_loss


def _limits(measured: MeasuredPool, predictions: SplitPredictions) -> list[float]:
    """Return budgets from the quickest trial's milliseconds to those of the best ensemble."""
    most, _ = measured.cost(
        [
            predictions.candidates[member].record.name
            for member in measured.rule().fit(predictions).members
        ]
    )
    least = min(milliseconds for milliseconds, _ in measured.costs.values())
    found = (_rounded_up(float(each)) for each in np.geomspace(least, max(most, least), STEPS))
    return sorted(set(found))


def _rounded_up(milliseconds: float) -> float:
    """Return a number of three digits that is no less, as a person types it."""
    unit = 10.0 ** (math.floor(math.log10(milliseconds)) - MORE_DIGITS)
    return float(f"{math.ceil(milliseconds / unit) * unit:.6g}")
