"""A study's models side by side on the same images: what each costs, scores, and alone gets right.

The table of the Stanford Cars assignment that carray grew from.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carray import metrics
from carray.errors import RecordError, counted
from carray.json_file import JsonResult
from carray.predictions.candidates import Candidate, comparable, find_candidates, read_trials
from carray.predictions.labels import held_labels
from carray.predictions.logits import SplitPredictions
from carray.predictions.statistics import Interval, scores_of_log_p
from carray.predictions.test_access import record_trial_accesses
from carray.records import TrialRecord
from carray.runs_folder import RunsFolder

MOST_ROWS = 12


@dataclass(frozen=True)
class ModelRow:
    """One trial in the table."""

    trial: str
    """`STUDY/0007`."""
    model: str
    """Its backbone; with its head where that isn't linear."""
    parameters: int | None
    epochs: int
    val_log_loss: float
    val_top1: float
    log_loss: Interval
    """On the images of `SideBySide.split`."""
    top1: Interval
    images_per_second: float
    """In training, all ranks together; the median of its epochs. Compare on one machine only."""
    seconds: float
    """Of its training."""
    peak_memory_gib: float
    """Of the device; of the process where there is none. NaN in records without it."""
    only_right: int
    """Images that it got right and every other model wrong."""
    only_wrong: int
    """Images that it got wrong and every other model right."""
    val_value: float = math.nan
    """In `ModelComparison.metric`, which the rows are ordered by."""


@dataclass(frozen=True)
class ModelComparison(JsonResult):
    """Models of one study on the same images of one split."""

    study: str
    split: str
    images: int
    rows: tuple[ModelRow, ...]
    all_right: int
    """Images that every model got right."""
    all_wrong: int
    models_that_opened_test: int
    """0 where the test split stayed closed."""
    left_out: int
    """Complete trials that the table leaves out."""
    metric: str = metrics.VAL_LOG_LOSS
    """That said what is best, on `val`."""


def compare_trials(
    study: str | None = None,
    *,
    trials: Sequence[int] | None = None,
    every: bool = False,
    metric: str | None = None,
    open_test: bool = True,
    runs: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> ModelComparison:
    """Compare trials of a study on `test`, whose opening is recorded for each, or on `val`.

    Args:
        study: its name; None takes the newest search.
        trials: their numbers; None takes the best complete trial of each backbone and head.
        every: take every complete trial instead, at most the best `MOST_ROWS`.
        metric: says what is best, on `val`; None takes the study's own.
        open_test: look at `test`; else at `val`, which has chosen the epochs.
        runs: the runs folder.
        seed: of the bootstrap.

    Raises:
        RecordError: no such study or trial, or fewer than two models.
        ConfigError: `metric` is unknown.
    """
    where = RunsFolder.at(runs)
    folder = where.find_study(study)
    record, labels = folder.record(), held_labels(folder)
    read = read_trials(folder, metric)
    found = find_candidates(record, read, metric, need_weights=False)
    named = comparable(record, read) if trials is not None else found.complete
    chosen = _select(named, record.name, trials, every)
    split = "test" if open_test and len(labels.of("test")) else "val"
    predictions = SplitPredictions(chosen, split, labels.of(split))
    opened = 0
    if split == "test":
        opened = record_trial_accesses(where, record, [one.record.name for one in chosen])
    right_MN = np.stack(
        [predictions.log_p(m).argmax(axis=1) == predictions.labels for m in range(len(chosen))]
    )
    return ModelComparison(
        study=record.name,
        split=split,
        images=len(predictions.labels),
        rows=tuple(
            _row(predictions, member, right_MN, seed, found.metric) for member in range(len(chosen))
        ),
        all_right=int(right_MN.all(axis=0).sum()),
        all_wrong=int((~right_MN).all(axis=0).sum()),
        models_that_opened_test=opened,
        left_out=sum(one not in chosen for one in found.complete),
        metric=found.metric,
    )


def _select(
    complete: Sequence[Candidate], study: str, trials: Sequence[int] | None, every: bool
) -> tuple[Candidate, ...]:
    if trials is not None:
        known = {candidate.record.number: candidate for candidate in complete}
        missing = [number for number in trials if number not in known]
        if missing:
            raise RecordError(
                f"trial {missing[0]} of study {study!r} can't be compared: it isn't complete, has "
                f"no logits, or was judged on other images; choose among "
                f"{', '.join(map(str, sorted(known)))}"
            )
        chosen = tuple(known[number] for number in dict.fromkeys(trials))
    elif every:
        chosen = tuple(complete[:MOST_ROWS])
    else:
        best: dict[str, Candidate] = {}
        for candidate in complete:
            best.setdefault(candidate.model_name, candidate)
        chosen = tuple(best.values())[:MOST_ROWS]
    if len(chosen) < 2:
        raise RecordError(
            f"study {study!r} has {counted(len(chosen), 'model')} to compare, at "
            "least two are needed: --all takes every complete trial, --trial names some"
        )
    return chosen


def _row(
    predictions: SplitPredictions,
    member: int,
    right_MN: npt.NDArray[np.bool_],
    seed: int,
    metric: str,
) -> ModelRow:
    candidate, right = predictions.candidates[member], right_MN[member]
    others = np.delete(right_MN, member, axis=0)
    scores = scores_of_log_p(predictions.log_p(member), predictions.labels, seed)
    record = candidate.record
    return ModelRow(
        trial=record.name,
        model=candidate.model_name,
        parameters=record.parameters,
        epochs=len(record.epochs),
        val_log_loss=record.best(metrics.VAL_LOG_LOSS),
        val_top1=record.best(metrics.VAL_TOP1),
        log_loss=scores.log_loss,
        top1=scores.top1,
        images_per_second=median_speed(record),
        seconds=record.trained_seconds,
        peak_memory_gib=peak_memory_gib(record),
        only_right=int((right & ~others.any(axis=0)).sum()),
        only_wrong=int((~right & others.all(axis=0)).sum()),
        val_value=record.best(metric),
    )


def peak_memory_gib(record: TrialRecord) -> float:
    """Return the most of its epochs; NaN where none measured it."""
    peaks = [row.get(metrics.PEAK_MEMORY_GIB, 0.0) for row in record.epochs]
    return max(peaks, default=0.0) or math.nan


def median_speed(record: TrialRecord) -> float:
    """Return the median of its epochs' images a second; NaN without any."""
    speeds = [row.get(metrics.IMAGES_PER_SECOND, math.nan) for row in record.epochs]
    return float(np.median(speeds)) if speeds else math.nan
