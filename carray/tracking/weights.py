"""Weights of a study's best trials beside their runs, so that the store alone makes a package."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from carray.records import StudyFolder
from carray.remote_studies import fetched_weights
from carray.runs_folder import RunsFolder
from carray.tracking.mlflow_client import is_default, store_of
from carray.tracking.study_run import find_study_run, runs_of_trials

AT_ONCE = 4  # uploads


def send_weights(runs: RunsFolder, folder: StudyFolder, trials: Collection[int]) -> int:
    """Put the weights of trials, by their numbers, beside their runs; return how many are there.

    The store under `runs` gets none: it lies beside them.

    Raises:
        TrackingError: the store doesn't answer or refuses, or has no such study.
    """
    if is_default(runs) or not trials:
        return 0
    with store_of(runs) as client:
        parent = find_study_run(client, folder.path.name)
        there = runs_of_trials(client, parent.info.experiment_id, parent.info.run_id)
        wanted = [number for number in trials if number in there]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return sum(pool.map(lambda n: _sent(client, there[n], folder, n), wanted))


def _sent(client: Any, run: Any, folder: StudyFolder, number: int) -> bool:
    file = fetched_weights(folder.trial(number))
    if not file.exists():
        return False
    sizes = {each.path: each.file_size for each in client.list_artifacts(run.info.run_id)}
    if sizes.get(file.name) != file.stat().st_size:
        client.log_artifact(run.info.run_id, str(file))
    return True
