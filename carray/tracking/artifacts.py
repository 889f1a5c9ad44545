"""Pictures and tables made later, put beside the run of the trial or model that they are of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from carray.errors import TrackingError
from carray.runs_folder import RunsFolder
from carray.tracking.mlflow_client import check_writable, is_default, store_of

FOLDER = "pictures"  # among the run's artifacts
MODEL_TAG = "carray.model"  # of a model's run: its package's name
STUDY_ITSELF = ""  # whose pictures are of all trials together


def attach(runs: RunsFolder, study: str, whose: int | str, files: Sequence[Path]) -> str:
    """Upload `files` to a run of `study`; return the run's id, "" where the store has no such run.

    Args:
        runs: the runs folder.
        study: the study's name.
        whose: a trial's number, a model package's name, or `STUDY_ITSELF`.
        files: what to upload.

    Raises:
        TrackingError: the store doesn't answer or refuses.
    """
    if is_default(runs) and not runs.tracking_file.exists():
        return ""
    check_writable(runs)
    with store_of(runs) as client:
        experiment = client.get_experiment_by_name(study)
        if experiment is None:
            return ""
        for query in _run_filters(whose):
            found = client.search_runs(
                [experiment.experiment_id],
                f'tags.`carray.study` = "{study}" and {query}',
                max_results=1,  # the newest: a model of the same name may have been logged before
            )
            if found:
                break
        else:
            return ""
        for file in files:
            client.log_artifact(found[0].info.run_id, str(file), FOLDER)
        return str(found[0].info.run_id)


def _run_filters(whose: int | str) -> tuple[str, ...]:
    """Return what tells the run; runs of models that 0.1 logged have no tag but their name."""
    if isinstance(whose, int):
        return (f"tags.`carray.trial` = '{whose:04d}'",)
    if whose == STUDY_ITSELF:
        return ("tags.`carray.kind` = 'study'",)
    is_model = "tags.`carray.kind` = 'model'"
    return (
        f'{is_model} and tags.`{MODEL_TAG}` = "{whose}"',
        f'{is_model} and attributes.run_name = "{whose}"',
    )


def attach_or_warn(runs: RunsFolder, study: str, whose: int | str, files: Sequence[Path]) -> str:
    """Attach the files; return a sentence that says where they are, or why they aren't there."""
    try:
        run_id = attach(runs, study, whose, files)
    except TrackingError as error:
        return f"not in the tracking store: {error}"
    return f"in the tracking store, {FOLDER} of run {run_id}" if run_id else ""
