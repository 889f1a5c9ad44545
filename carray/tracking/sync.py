"""Sends a study's records to the tracking store again, and fetches a study from it."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from carray.errors import TrackingError, did_you_mean
from carray.progress import progress
from carray.records import StudyFolder, StudyRecord, TrialRecord
from carray.runs_folder import RunsFolder
from carray.tracking.mlflow_client import (
    client_of,
    close_store,
    is_default,
    quiet,
    store_of,
    tracking_uri,
    translate_mlflow_errors,
)
from carray.tracking.mlflow_tracker import MlflowTracker
from carray.tracking.study_run import child_runs
from carray.typing import Advance

_logger = logging.getLogger(__name__)


def open_tracker(
    runs: RunsFolder, on_trouble: Callable[[str], None] = _logger.warning
) -> MlflowTracker:
    """Return the tracker of `$MLFLOW_TRACKING_URI`, else of `mlflow.db` under `runs`.

    The store's schema is made here, once, before anything else may race for it.

    Raises:
        TrackingError: the store doesn't answer within seconds.
    """
    client = client_of(runs)
    artifacts = runs.tracking_artifacts if is_default(runs) else None
    return MlflowTracker(client, tracking_uri(runs), artifacts, on_trouble)


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
        tracker.study_ended(study)
        left = tracker.tell_all(math.inf, progress)
    finally:
        close_store(tracking_uri(runs))
    if left:
        raise TrackingError(
            f"{left} runs of study {study.name} didn't reach {tracking_uri(runs)}; the same "
            "command sends what is missing"
        )
    return len(trials)


def download_study(runs: RunsFolder, name: str) -> StudyFolder:
    """Fetch records, labels and logits of study `name` from the tracking store into `runs`.

    What is already on disk stays as it is.

    Raises:
        TrackingError: the store doesn't answer, or has no such study.
    """
    folder = runs.study(name)
    with store_of(runs) as client, translate_mlflow_errors(tracking_uri(runs)), quiet():
        parent = _find_parent(client, name)
        _fetch(client, parent.info.run_id, folder.path, ("study.json", "space.yaml", "labels.npz"))
        children = child_runs(client, parent.info.experiment_id, parent.info.run_id)
        with progress(f"fetching {name}", len(children), "trials") as advance:
            for run in children:
                _fetch_trial(client, run, folder, advance)
    StudyRecord.read(folder.record_file)
    return folder


def _find_parent(client: Any, name: str) -> Any:
    """Return the newest parent run of study `name`."""
    experiment = client.get_experiment_by_name(name)
    found = experiment and client.search_runs(
        [experiment.experiment_id],
        "tags.`carray.kind` = 'study'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not found:
        names = [known.name for known in client.search_experiments()]
        raise TrackingError(f"no study {name!r} in the tracking store{did_you_mean(name, names)}")
    return found[0]


def _fetch_trial(client: Any, run: Any, folder: StudyFolder, advance: Advance) -> None:
    number = run.data.tags.get("carray.trial")
    if number is not None:
        trial = folder.trial(int(number))
        _fetch(client, run.info.run_id, trial.path, ("logits.npz", "record.json"))
        if trial.record_file.exists():
            TrialRecord.read(trial.record_file)
    advance(1)


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
