"""What a study under faults has left, read on a machine that has only its URL."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carray.errors import CarrayError
from carray.records import TrialFolder, TrialRecord
from carray.runs_folder import RunsFolder
from carray.storage.mirror import mirror_of
from carray.tracking.study_run import LOST
from tests.chaos.nodes import RAY_PORT, SUBNET, Node
from tests.chaos.study import RUNS
from tests.processes import words_of

RAYS_OWN = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
LEAVE_SECONDS = 30.0  # after which a process that is still there has leaked
GROUPS = """
import ray
from ray.util import placement_group_table
ray.init(address="{address}", log_to_driver=False)
states = [each["state"] for each in placement_group_table().values()]
print("groups", sum(state != "REMOVED" for state in states))
"""


@dataclass
class Left:
    """Counts of a study's trials, and of what is not as it should be."""

    finished: int = 0
    failed: int = 0
    damaged: int = 0
    logits_missing: int = 0
    doubled: int = 0
    untracked: int = 0


def left_at_url(name: str, trials: int, cache: Path, mlflow: str) -> Left:
    """Read the study from its URL into a new cache, and its runs from MLflow."""
    os.environ["CARRAY_CACHE"] = str(cache)
    left = Left()
    try:
        study = RunsFolder.at(RUNS).find_study(name)
    except CarrayError as error:
        print(f"  {name} can't be read: {error}")
        left.damaged = trials
        return left
    splits = {each: len(study.labels(each)) for each in ("val", "blend", "test")}
    numbers = []
    for folder in sorted((study.path / "trials").iterdir()):
        try:
            record = TrialFolder(folder).record()
        except CarrayError as error:
            print(f"  {folder.name} can't be read: {error}")
            left.damaged += 1
            continue
        numbers.append(record.number)
        left.damaged += not _is_whole(record)
        left.finished += str(record.state) == "complete"
        left.failed += str(record.state) in ("failed", "infeasible", "collapsed")
        if record.state.is_finished() and not _has_logits(TrialFolder(folder), splits):
            left.logits_missing += 1
    left.damaged += trials - len(set(numbers))
    left.doubled, left.untracked = _tracked(name, numbers, mlflow)
    return left


def _is_whole(record: TrialRecord) -> bool:
    if str(record.state) != "complete" or len(record.epochs) == record.config.epochs:
        return True
    print(f"  {record.name} is complete with {len(record.epochs)} epochs: {record.reason}")
    return False


def _has_logits(trial: TrialFolder, splits: dict[str, int]) -> bool:
    if mirror := mirror_of(trial.path):
        mirror.pull(mirror.name_of(trial.path), lambda name: name.endswith("logits.npz"))
    with suppress(OSError, ValueError, KeyError), np.load(trial.logits_file) as logits:
        rows = [len(logits[name]) for name in splits if splits[name]]
        return rows == [count for count in splits.values() if count]
    return False


def _tracked(name: str, numbers: list[int], uri: str) -> tuple[int, int]:
    """Return how many runs MLflow has twice, and how many trials it has no ended run of."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return 0, len(numbers)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    runs = [run for run in runs if run.data.tags.get("carray.kind") != LOST]
    tags = [run.data.tags for run in runs]
    counts = Counter(
        each.get("carray.trial", each.get("carray.kind")) for each in tags if "carray.kind" in each
    )
    for run in runs:  # which, of which run of the study, and when
        key = run.data.tags.get("carray.trial", run.data.tags.get("carray.kind"))
        if counts[key] > 1:
            parent = run.data.tags.get("mlflow.parentRunId", "")[:6]
            began = run.data.tags.get("carray.started_at", run.info.start_time)
            print(f"  {key} is there twice: {run.info.run_id[:6]} below {parent}, begun {began}")
    ended = {run.data.tags.get("carray.trial") for run in runs if run.info.status == "FINISHED"}
    missing = sum(f"{number:04d}" not in ended for number in numbers)
    return sum(counts.values()) - len(counts), missing


def leaked(nodes: list[Node]) -> list[str]:
    """Return what of a study still runs some time after its end; Ray's own may stay."""
    deadline = time.monotonic() + LEAVE_SECONDS
    while (found := _of_study(nodes)) and time.monotonic() < deadline:
        time.sleep(1)
    return found


def groups_left(head: Node) -> int:
    """Count the placement groups that the cluster still holds."""
    code = GROUPS.format(address=f"{SUBNET}.11:{RAY_PORT}")
    said = head.run(sys.executable, "-W", "ignore", "-c", code)
    return int(said.rpartition("groups ")[2])


def _of_study(nodes: list[Node]) -> list[str]:
    found = []
    for node in nodes:
        lines = [" ".join(words_of(process)).strip() for process in node.processes()]
        of_study = [line for line in lines if line.startswith("ray::") or "carray." in line]
        found += [f"{node.name}: {line}" for line in of_study if not line.startswith(RAYS_OWN)]
    return found
