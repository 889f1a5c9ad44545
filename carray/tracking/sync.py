"""Sends a study's records to the tracking store again, and fetches a study from it."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from carray.errors import TrackingError, counted
from carray.progress import progress
from carray.records import StudyFolder, StudyRecord, TrialRecord
from carray.runs_folder import RunsFolder
from carray.tracking.mlflow_client import (
    artifacts_of,
    check_writable,
    client_of,
    close_store,
    store_of,
    tracking_uri,
)
from carray.tracking.mlflow_tracker import MlflowTracker
from carray.tracking.study_run import find_study_run, runs_of_trials

AT_ONCE = 8  # trials that are sent to, or fetched from, a server
STUDY_FILES = ("study.json", "space.yaml", "labels.npz")
TRIAL_FILES = ("logits.npz", "best.safetensors", "record.json")

_logger = logging.getLogger(__name__)


def open_tracker(
    runs: RunsFolder, on_trouble: Callable[[str], None] = _logger.warning
) -> MlflowTracker:
    """Return the tracker of `$MLFLOW_TRACKING_URI`, else of `mlflow.db` under `runs`.

    The store's schema is made here, once, before anything else may race for it.

    Raises:
        TrackingError: the store doesn't answer within seconds, or may not be written.
    """
    check_writable(runs)
    return MlflowTracker(client_of(runs), tracking_uri(runs), artifacts_of(runs), on_trouble)


def study_files(folder: StudyFolder) -> tuple[Path, ...]:
    """Return the files that go up with a study: its space and the labels of its held splits."""
    return (folder.space_file, folder.labels_file)


def sync_study(runs: RunsFolder, folder: StudyFolder) -> int:
    """Send every record of a study to the tracking store; return the number of trials.

    Raises:
        TrackingError: the store doesn't answer, or stops answering.
    """
    study, trials = folder.record(), list(folder.trials())
    tracker = open_tracker(runs)
    try:
        tracker.study_started(study, study_files(folder))
        for trial_folder, record in trials:
            if record.state.is_finished():
                tracker.trial_ended(record, trial_folder)
            else:
                tracker.epoch_ended(record)
        tracker.study_ended(study, (folder.costs_file, folder.front_file))
        left = tracker.tell_all(math.inf, progress, _writers(runs))
    finally:
        close_store(tracking_uri(runs))
    if left:
        raise TrackingError(
            f"{counted(left, 'run')} of study {study.name} didn't reach {tracking_uri(runs)}; the "
            "same command sends what is missing"
        )
    return len(trials)


def _writers(runs: RunsFolder) -> int:
    """Return how many threads write at once: a file takes one after the other."""
    return 1 if tracking_uri(runs).startswith("sqlite:") else AT_ONCE


def download_study(runs: RunsFolder, name: str) -> StudyFolder:
    """Fetch records, labels, logits and the weights that are there of study `name` into `runs`.

    What is already on disk stays as it is.

    Raises:
        TrackingError: the store doesn't answer, or has no such study.
    """
    folder = runs.study(name)
    with store_of(runs) as client:
        parent = find_study_run(client, name)
        _fetch(client, parent.info.run_id, folder.path, STUDY_FILES)
        trials = runs_of_trials(client, parent.info.experiment_id, parent.info.run_id)
        with (
            progress(f"fetching {name}", len(trials), "trials") as advance,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            fetched = pool.map(lambda each: _fetch_trial(client, each, folder), trials.items())
            for _ in fetched:
                advance(1)
    StudyRecord.read(folder.record_file)
    return folder


def _fetch_trial(client: Any, found: tuple[int, Any], folder: StudyFolder) -> None:
    number, run = found
    trial = folder.trial(number)
    _fetch(client, run.info.run_id, trial.path, TRIAL_FILES)
    if trial.record_file.exists():
        TrialRecord.read(trial.record_file)


def _fetch(client: Any, run_id: str, into: Path, names: tuple[str, ...]) -> None:
    """Download those of `names` that the run has and `into` lacks; aside, then renamed."""
    there = {file.path for file in client.list_artifacts(run_id)}
    missing = [name for name in names if name in there and not (into / name).exists()]
    if not missing:
        return
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into, prefix=".fetch-") as aside:
        for name in missing:
            Path(client.download_artifacts(run_id, name, aside)).replace(into / name)
