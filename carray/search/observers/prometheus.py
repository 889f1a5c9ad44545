"""What a running study exports through Ray's metrics, for Prometheus and `dashboards/`.

Ray puts `ray_` before each name, `_total` behind each counter, and serves them on every node's
metrics port.
"""

from __future__ import annotations

import math
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ray.util.metrics import Counter, Gauge

from carray import metrics
from carray.records import StudyRecord, TrialFolder, TrialRecord, TrialState

TRIALS = "carray_trials"
EPOCHS = "carray_epochs"
IMAGES_PER_SECOND = "carray_images_per_second"
DATA_WAIT_SHARE = "carray_data_wait_share"
BEST_VALUE = "carray_best_value"
FAILURES = "carray_failures"

AT_WORK_EPOCHS = 3.0  # a trial silent for so many of its own epochs is paused, not at work
CAUSES = (  # the first word found in a failed trial's reason names the cause
    ("out of memory", "out_of_memory"),
    ("worker group", "lane_died"),
    ("loss", "non_finite_loss"),
    ("weights", "weights"),
    ("lane", "lane_died"),
    ("died", "lane_died"),
    ("killed", "lane_died"),
)


def cause_of(record: TrialRecord) -> str:
    """Return one of a few words for why a trial failed; "error" where none fits."""
    if record.state is TrialState.INFEASIBLE:
        return "out_of_memory"
    reason = record.reason.lower()
    return next((cause for word, cause in CAUSES if word in reason), "error")


class StudyGauges:
    """A study's observer, told the same as its tracker; Ray must be initialised.

    `earlier` are the trials that a resumed study has already.
    """

    def __init__(
        self,
        study: StudyRecord,
        earlier: Iterable[TrialRecord] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metric = study.metric
        self._clock = clock
        self._states: dict[int, TrialState] = {}
        self._counts: Tally[TrialState] = Tally()
        self._pace: dict[int, tuple[float, float, float]] = {}  # by trial: until, images/s, wait
        self._best = math.nan
        tags = {"study": metrics.ascii_name(study.name)}
        self._trials = _gauge(TRIALS, "Trials by state.", tags, "state")
        self._epochs = _counter(EPOCHS, "Epochs trained, all trials together.", tags)
        self._images = _gauge(IMAGES_PER_SECOND, "Training images a second, all lanes.", tags)
        self._wait = _gauge(DATA_WAIT_SHARE, "Share of training time without a batch.", tags)
        self._value = _gauge(BEST_VALUE, "Best value of the objective so far.", tags, "metric")
        self._failures = _counter(FAILURES, "Trials without a result, by cause.", tags, "cause")
        for record in earlier:
            self._note(record)
        self._show()

    def study_started(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Show what there is."""
        self._show()

    def trial_started(self, record: TrialRecord) -> None:
        """Count a trial as running."""
        self._note(record)
        self._show()

    def epoch_ended(self, record: TrialRecord) -> None:
        """Count an epoch and show its pace."""
        self._epochs.inc()
        row = record.epochs[-1]
        until = self._clock() + AT_WORK_EPOCHS * row.get(metrics.EPOCH_SECONDS, math.inf)
        speed, wait = row.get(metrics.IMAGES_PER_SECOND, 0.0), row.get(metrics.DATA_WAIT, math.nan)
        self._pace[record.number] = (until, speed, wait)
        self._note(record)
        self._show_pace()

    def trial_ended(self, record: TrialRecord, folder: TrialFolder) -> None:
        """Count how the trial ended."""
        self._pace.pop(record.number, None)
        if record.state in (TrialState.FAILED, TrialState.INFEASIBLE):
            self._failures.inc(tags={"cause": cause_of(record)})
        self._note(record)
        self._show()

    def study_ended(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Show that nothing is at work any more."""
        self._pace.clear()
        self._show()

    def close(self) -> None:
        """Nothing is held: Ray exports what was set last."""

    def _note(self, record: TrialRecord) -> None:
        if record.number in self._states:
            self._counts[self._states[record.number]] -= 1
        self._states[record.number] = record.state
        self._counts[record.state] += 1
        value = record.best(self._metric)
        if metrics.Objective(self._metric).is_better(value, self._best):
            self._best = value

    def _show(self) -> None:
        for state in TrialState:
            self._trials.set(self._counts[state], tags={"state": str(state)})
        self._show_pace()

    def _show_pace(self) -> None:
        """Show what an epoch may change: one look at what each trial at work told last."""
        now, waits, images = self._clock(), [], 0.0
        for until, speed, wait in self._pace.values():
            if now <= until:
                images += speed
                if wait == wait:  # not NaN
                    waits.append(wait)
        self._images.set(images)
        self._wait.set(sum(waits) / len(waits) if waits else 0.0)
        if math.isfinite(self._best):
            self._value.set(self._best, tags={"metric": self._metric})


def _gauge(name: str, description: str, tags: dict[str, str], *keys: str) -> Gauge:
    gauge = Gauge(name, description, tag_keys=(*tags, *keys))
    gauge.set_default_tags(tags)
    return gauge


def _counter(name: str, description: str, tags: dict[str, str], *keys: str) -> Counter:
    counter = Counter(name, description, tag_keys=(*tags, *keys))
    counter.set_default_tags(tags)
    return counter
