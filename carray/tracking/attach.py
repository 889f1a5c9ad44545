"""Pictures and tables made later, put beside the run of the trial that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from carray.errors import TrackingError
from carray.records import RunsFolder, TrialRecord
from carray.tracking.door import client_of, is_default, quiet, told_as_tracking_errors, tracking_uri

FOLDER = "pictures"  # among the run's artifacts


def attach_to_trial(runs: RunsFolder, record: TrialRecord, files: Sequence[Path]) -> str:
    """Upload `files` to the trial's run; return the run's id, "" where the store has no such run.

    Raises:
        TrackingError: the store doesn't answer or refuses.
    """
    if is_default(runs) and not runs.tracking_file.exists():
        return ""
    client = client_of(runs)
    with told_as_tracking_errors(tracking_uri(runs)), quiet():
        experiment = client.get_experiment_by_name(record.study)
        if experiment is None:
            return ""
        found = client.search_runs(
            [experiment.experiment_id],
            f"tags.`carray.study` = '{record.study}' and tags.`carray.trial` = "
            f"'{record.number:04d}'",
            max_results=1,
        )
        if not found:
            return ""
        for file in files:
            client.log_artifact(found[0].info.run_id, str(file), FOLDER)
        return str(found[0].info.run_id)


def attach_or_say(runs: RunsFolder, record: TrialRecord, files: Sequence[Path]) -> str:
    """Attach the files; return a sentence that says where they are, or why they aren't there."""
    try:
        run_id = attach_to_trial(runs, record, files)
    except TrackingError as error:
        return f"not in the tracking store: {error}"
    return f"in the tracking store, {FOLDER} of run {run_id}" if run_id else ""
