"""`MlflowTracker`: a study as a parent run, its trials as child runs, written by one thread.

The thread is handed the newest record of each trial and tells MLflow what it lacks, at its own
pace: a call takes the store some 15 ms, and where reports come fast several are told as one. So
events can't pile up, an event that failed is told with the next one, and telling twice changes
nothing: MLflow drops a metric of the same step, value and time, and times come from the record.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from carray import metrics
from carray.config import flatten
from carray.errors import counted, first_cause
from carray.masking import masked
from carray.progress import silent
from carray.records import StudyRecord, TrialFolder, TrialRecord, TrialState
from carray.tracking.mlflow_client import close_store, quiet, translate_mlflow_errors
from carray.tracking.study_run import (
    EPOCHS_SENT,
    StudyRun,
    TrialRunState,
    mlflow_key,
    trial_end_ms,
)
from carray.tracking.tracker import Tracker, curve_row, end_metrics, run_of
from carray.typing import Progress

CLOSE_SECONDS = 60.0
FAILING_SECONDS = 5.0  # what closing waits for a store that has stopped answering
SLOW_SECONDS = 15.0  # a call that lasts longer means the same
RETRY_SECONDS = (2.0, 5.0, 15.0, 60.0)  # pauses after a failure, then the last one again and again
REST = 19.0  # the writer rests so many times as long as a call took: a twentieth of a core
MAX_REST_SECONDS = 2.0  # a slow store costs waiting, not work
ROUND_SECONDS = 5.0  # where many trials have news each is told as often, for up to half a core
FILES_SENT = "carray.sent"  # the tag that says which files an ended trial has sent
METRICS_PER_CALL = 800  # MLflow takes 1,000 metrics, params and tags together
STATUS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "FINISHED",  # it did what it was asked; the tag says that it was stopped
    TrialState.COLLAPSED: "FINISHED",
    TrialState.FAILED: "FAILED",
    TrialState.INFEASIBLE: "FAILED",
}


@dataclass(frozen=True)
class _TrialNews:
    """The newest that is known of one trial; the folder once it has ended."""

    record: TrialRecord
    folder: TrialFolder | None


@dataclass(frozen=True)
class _StudyNews:
    """The newest that is known of the study itself."""

    record: StudyRecord
    files: tuple[Path, ...]


_News = _TrialNews | _StudyNews
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # libyaml's is ten times faster


class MlflowTracker(Tracker):
    """Writes to one MLflow store; see `Tracker`.

    Args:
        client: an `mlflow.MlflowClient`.
        uri: its store, for messages.
        artifacts: where a new experiment's artifacts go; None lets the store choose.
        on_trouble: is told once when the store stops answering, and once when news were lost.
    """

    def __init__(
        self,
        client: Any,
        uri: str,
        artifacts: Path | None,
        on_trouble: Callable[[str], None],
    ) -> None:
        self._client, self._uri, self._artifacts = client, uri, artifacts
        self._on_trouble: Callable[[str], None] = lambda text: on_trouble(masked(text))
        self._run: StudyRun | None = None
        self._news: dict[int, _News] = {}  # by trial number; the study is -1
        self._wake = threading.Condition()
        self._closing = False
        self._busy = 0  # threads at work
        self._called_at = self._told_at = 0.0  # when the store was called and answered, monotonic
        self._failures = 0
        self._thread = threading.Thread(target=self._work, name="carray-tracking", daemon=True)

    def study_started(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Find or make the study's experiment and run; waits for the store."""
        with translate_mlflow_errors(self._uri), quiet():
            self._run = StudyRun.find_or_make(self._client, study, self._artifacts)
        self._tell(-1, _StudyNews(study, tuple(files)))

    def trial_started(self, record: TrialRecord) -> None:
        """Hand over the trial's record."""
        self._tell(record.number, _TrialNews(record, None))

    def epoch_ended(self, record: TrialRecord) -> None:
        """Hand over the trial's record."""
        self._tell(record.number, _TrialNews(record, None))

    def trial_ended(self, record: TrialRecord, folder: TrialFolder) -> None:
        """Hand over the trial's record and files."""
        self._tell(record.number, _TrialNews(record, folder))

    def study_ended(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Hand over the study's record."""
        self._tell(-1, _StudyNews(study, tuple(files)))

    def close(self) -> None:
        """Wait until everything is told, at most `CLOSE_SECONDS`; say how much is not.

        The connections to the store are closed.
        """
        left = self.tell_all(CLOSE_SECONDS)
        close_store(self._uri)
        if left:
            self._on_trouble(
                f"{counted(left, 'run')} didn't reach {self._uri}; nothing is lost: "
                "`carray sync` sends them from their records"
            )

    def tell_all(self, patience_seconds: float, show: Progress = silent, writers: int = 1) -> int:
        """Wait until everything is told, and take no more; return how many runs are not told.

        Args:
            patience_seconds: how long to wait for a store that answers; one that fails gets
                `FAILING_SECONDS` since it last answered, a single call `SLOW_SECONDS`. Infinite
                patience leaves how long a call may take to the library.
            show: `progress` or `silent`.
            writers: threads that tell, each of another trial.
        """
        with self._wake:
            self._closing = True
            self._told_at = start = time.monotonic()
            self._wake.notify_all()
        threads = [self._thread, *(self._another_writer() for _ in range(writers - 1))]
        left, is_over = self._left(), False
        with show("sending to MLflow", left, "runs") as advance:
            while not is_over:
                at_work = next((each for each in threads if each.is_alive()), None)
                is_over = at_work is None or self._is_vain(start + patience_seconds)
                before, left = left, self._left()
                advance(before - left)
                if at_work and not is_over:
                    at_work.join(0.05)
        return left

    def _another_writer(self) -> threading.Thread:
        thread = threading.Thread(target=self._work, name="carray-tracking-more", daemon=True)
        thread.start()
        return thread

    def _left(self) -> int:
        with self._wake:
            return len(self._news) + self._busy

    def _is_vain(self, deadline: float) -> bool:
        """Say whether to give up on a store: sooner on one that fails than on one that is busy."""
        now = time.monotonic()
        is_hurried = math.isfinite(deadline)
        is_slow = is_hurried and self._busy > 0 and now - self._called_at > SLOW_SECONDS
        has_failed = self._failures > 0 and now - self._told_at > FAILING_SECONDS
        return is_slow or has_failed or now > deadline

    def _tell(self, key: int, news: _News) -> None:
        with self._wake:
            before = self._news.pop(key, None)
            if isinstance(before, _StudyNews) and isinstance(news, _StudyNews):
                news = _StudyNews(news.record, tuple(dict.fromkeys(before.files + news.files)))
            self._news[key] = news
            if not self._thread.is_alive():
                self._thread.start()
            self._wake.notify_all()

    def _work(self) -> None:
        """Tell the news in the order in which they came, until closed and empty."""
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._news or self._closing)
                if not self._news:
                    return
                key = next(iter(self._news))
                news = self._news.pop(key)
                called_at = self._called_at = time.monotonic()
                self._busy += 1
            failed = not self._told(news)
            spent = time.monotonic() - called_at
            with self._wake:
                self._busy -= 1
                in_turn = max(spent, ROUND_SECONDS / max(1, len(self._news)))
                rest = min(REST * spent, MAX_REST_SECONDS, in_turn)
                if not failed:  # what comes meanwhile is told together
                    self._wake.wait_for(lambda: self._closing, rest)
                else:
                    self._news = {key: self._news.get(key, news), **self._news}
                    if self._closing and self._failures >= len(RETRY_SECONDS):
                        return
                    pause = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS)) - 1]
                    self._wake.wait(min(pause, 2.0) if self._closing else pause)

    def _told(self, news: _News) -> bool:
        try:
            if isinstance(news, _StudyNews):
                self._study_run().write(news.record, news.files)
            else:
                self._write_trial(news)
        except Exception as error:  # the search goes on whatever the store says
            self._failures += 1
            if self._failures == 1:
                self._on_trouble(
                    f"the tracking store {self._uri} stopped answering ({first_cause(error)}); "
                    "the study goes on and tries again"
                )
            return False
        self._failures, self._told_at = 0, time.monotonic()
        return True

    def _study_run(self) -> StudyRun:
        if self._run is None:
            raise RuntimeError("study_started must be called first")
        return self._run

    def _write_trial(self, news: _TrialNews) -> None:
        """Tell what the store lacks of a trial; what says that all is there comes last."""
        from mlflow.entities import Metric, Param, RunTag

        record, study = news.record, self._study_run()
        shown = run_of(record)
        sent = files_mark(news.folder) if news.folder else ""
        trial = study.trial_run(record, shown)
        if trial.ended and sent and trial.tags.get(FILES_SENT) == sent:
            study.note_best(record)
            return
        points = []
        for epoch in range(trial.epochs_told + 1, len(record.epochs) + 1):
            at_ms = epoch_end_ms(record, epoch)
            row = curve_row(record, epoch)
            points += [Metric(mlflow_key(name), value, at_ms, epoch) for name, value in row.items()]
        if news.folder is not None:
            at_ms, done = trial_end_ms(record), len(record.epochs)
            points += [
                Metric(name, value, at_ms, done) for name, value in end_metrics(record).items()
            ]
        while len(points) > METRICS_PER_CALL:
            self._client.log_batch(trial.run_id, metrics=points[:METRICS_PER_CALL])
            points = points[METRICS_PER_CALL:]
        self._send_files(trial, news)
        params = {} if trial.params_told else shown.params
        tags = {
            **shown.tags,
            EPOCHS_SENT: str(len(record.epochs)),
            **({FILES_SENT: sent} if sent else {}),
        }
        self._client.log_batch(
            trial.run_id,
            metrics=points,
            params=[Param(mlflow_key(name), value) for name, value in params.items()],
            tags=[
                RunTag(name, value) for name, value in tags.items() if trial.tags.get(name) != value
            ],
        )
        study.trials[record.number] = trial.after(len(record.epochs), tags)
        if news.folder is not None:
            study.end(record, STATUS[record.state])

    def _send_files(self, trial: TrialRunState, news: _TrialNews) -> None:
        """Send the configuration once, and what an ended trial left, in one call."""
        with TemporaryDirectory() as name:
            aside = Path(name)
            if not trial.params_told:
                text = yaml.dump(flatten(news.record.config), Dumper=_Dumper, indent=2)
                (aside / "config.yaml").write_text(text, encoding="utf-8")
            folder = news.folder
            for file in (folder.record_file, folder.logits_file) if folder else ():
                if file.exists():
                    (aside / file.name).symlink_to(file.absolute())
            if any(aside.iterdir()):
                self._client.log_artifacts(trial.run_id, name)


def files_mark(folder: TrialFolder) -> str:
    """Return what tells the files of an ended trial from those that it left before."""
    sizes = [file.stat().st_size for file in (folder.logits_file,) if file.exists()]
    return sha256(folder.record_file.read_bytes() + repr(sizes).encode()).hexdigest()[:16]


def epoch_end_ms(record: TrialRecord, epoch: int) -> int:
    """Return when 1-based `epoch` ended as far as the record tells: always the same answer."""
    spent = sum(row.get(metrics.EPOCH_SECONDS, 0.0) for row in record.epochs[:epoch])
    return round(1000 * ((record.started_at or 0.0) + spent))
