"""One study in an MLflow store: its experiment, its run, and the runs of its trials.

Runs are found again by their tags, so a resumed study makes none twice.
"""

from __future__ import annotations

import getpass
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Self

from carray import metrics
from carray.errors import TrackingError, did_you_mean
from carray.records import StudyRecord, TrialRecord, TrialState
from carray.storage.remote import is_url
from carray.tracking.tracker import TrialRun, cost_metrics

EPOCHS_SENT = "carray.epochs_told"  # the tag that says how many rows and that the params are there
LOST = "lost"  # the `carray.kind` of a run whose trial has left no record
STUDY_STATUS = {
    "running": "RUNNING",
    "complete": "FINISHED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}


@dataclass(frozen=True)
class TrialRunState:
    """What the store already knows of one trial."""

    run_id: str
    started_ms: int = 0
    """Tells it from another trial that had its number on a machine that was lost."""
    epochs_told: int = 0
    params_told: bool = False
    ended: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)

    def after(self, epochs: int, tags: Mapping[str, str]) -> TrialRunState:
        """Return the state once `epochs` and `tags` are told."""
        return replace(self, epochs_told=epochs, params_told=True, tags=tags)


@dataclass
class StudyRun:
    """The study's run and what is known of its children; threads may write different ones."""

    client: Any
    study: str
    experiment_id: str
    run_id: str
    metric: str = metrics.VAL_LOG_LOSS
    """What the study optimises."""
    data: Any = None
    """MLflow's name of the data set, for every run of the study; None where it isn't known."""
    best_value: float = float("nan")
    trials: dict[int, TrialRunState] = field(default_factory=dict)
    unsure: set[int] = field(default_factory=set)
    """Trials whose run may be there: the store was asked to make it, and didn't answer."""
    lock: Lock = field(default_factory=Lock)

    @classmethod
    def find_or_make(cls, client: Any, study: StudyRecord, artifacts: Path | None) -> Self:
        """Find the experiment and the parent run of `study` by name and start, or make them."""
        experiment_id = find_or_make_experiment(client, study.name, artifacts)
        tags = {
            "carray.study": study.name,
            "carray.kind": "study",
            "carray.started_at": f"{study.started_at:.3f}",
            "carray.manifest_hash": study.manifest_hash,
            "carray.git_commit": study.git_commit,
            **origin_tags(study.git_commit, study.command or "carray"),
        }
        found = client.search_runs(
            [experiment_id],
            f"tags.`carray.kind` = 'study' and tags.`carray.started_at` = "
            f"'{tags['carray.started_at']}'",
            max_results=1,
        )
        if found:
            run_id = found[0].info.run_id
            client.update_run(run_id, status="RUNNING")
        else:
            run_id = client.create_run(
                experiment_id,
                start_time=round(1000 * study.started_at) or None,
                tags=tags,
                run_name=study.name,
            ).info.run_id
        run = cls(client, study.name, experiment_id, run_id, study.metric, dataset_of(study))
        if not found:
            run.say_data(run_id)
        run._find_trials(child_runs(client, experiment_id, run_id))
        return run

    def write(self, study: StudyRecord, files: Sequence[Path]) -> None:
        """Write how the study stands, and its files that exist."""
        self.client.log_text(self.run_id, study.model_dump_json(indent=1), "study.json")
        for file in files:
            if file.exists():
                self.client.log_artifact(self.run_id, str(file))
        self.client.set_tag(self.run_id, "carray.state", study.standing)
        for name, value in cost_metrics(study.cost).items():
            self.client.log_metric(self.run_id, name, value)
        if study.state != "running":
            ended_ms = round(1000 * study.ended_at) if study.ended_at else None
            self.client.set_terminated(self.run_id, STUDY_STATUS[study.state], ended_ms)

    def say_data(self, run_id: str) -> None:
        """Say in a run which data set it is of."""
        if self.data is not None:
            self.client.log_inputs(run_id, [self.data])

    def trial_run(self, record: TrialRecord, shown: TrialRun) -> TrialRunState:
        """Return the run of this trial; makes it where there is none, wakes it where it ended."""
        if record.number in self.unsure:
            number = f"tags.`carray.trial` = '{record.number:04d}'"
            self._find_trials(child_runs(self.client, self.experiment_id, self.run_id, number))
        known = self.trials.get(record.number)
        if known is not None and known.started_ms != (_start_ms(record) or known.started_ms):
            self._set_aside(self.trials.pop(record.number))
            known = None
        if known is None:
            return self._make_trial(record, shown)
        if known.ended and record.state is TrialState.RUNNING:
            self.client.update_run(known.run_id, status="RUNNING")
            known = self.trials[record.number] = replace(known, ended=False)
        return known

    def end(self, record: TrialRecord, status: str) -> None:
        """End a trial's run; draw the study's own curve, the best value so far."""
        known, ended_ms = self.trials[record.number], trial_end_ms(record)
        with self.lock:
            if self.note_best(record):  # by how many have ended: trials end in another order
                step = sum(trial.ended for trial in self.trials.values()) + (not known.ended)
                name = f"best/{self.metric}"
                self.client.log_metric(
                    self.run_id, name, self.best_value, timestamp=ended_ms, step=step
                )
        self.client.set_terminated(known.run_id, status=status, end_time=ended_ms)
        self.trials[record.number] = replace(known, ended=True)

    def note_best(self, record: TrialRecord) -> bool:
        """Remember the best value of all ended trials; say whether it is this one's."""
        if record.kind == "fold":  # judged on other images
            return False
        value = record.best(self.metric)
        is_best = metrics.Objective(self.metric).is_better(value, self.best_value)
        self.best_value = value if is_best else self.best_value
        return is_best

    def _make_trial(self, record: TrialRecord, shown: TrialRun) -> TrialRunState:
        self.unsure.add(record.number)
        run = self.client.create_run(
            self.experiment_id,
            start_time=_start_ms(record),
            tags={
                "mlflow.parentRunId": self.run_id,
                **origin_tags(record.git_commit, record.study),
                **shown.tags,
            },
            run_name=shown.name,
        )
        made = TrialRunState(run.info.run_id, run.info.start_time, tags=shown.tags)
        self.trials[record.number] = made
        self.unsure.discard(record.number)
        self.say_data(made.run_id)
        return made

    def _set_aside(self, lost: TrialRunState) -> None:
        """Let a run be no trial's: its trial, whose machine was lost, has no record or another."""
        self.client.set_tag(lost.run_id, "carray.kind", LOST)
        self.client.delete_tag(lost.run_id, "carray.trial")
        self.client.set_terminated(lost.run_id, "KILLED")

    def _find_trials(self, runs: Sequence[Any]) -> None:
        """Take over the run of each trial; of two, made where an answer was lost, the fuller."""
        for run in runs:
            tags, number = run.data.tags, run.data.tags.get("carray.trial")
            if number is None:
                continue
            found = TrialRunState(
                run.info.run_id,
                run.info.start_time,
                epochs_told=int(tags.get(EPOCHS_SENT, 0)),
                params_told=EPOCHS_SENT in tags,
                ended=run.info.status != "RUNNING",
                tags=tags,
            )
            known = self.trials.get(int(number), found)
            fuller = max(known, found, key=lambda each: (each.epochs_told, each.ended))
            self.trials[int(number)] = fuller
            if known.run_id != found.run_id:
                self._set_aside(found if fuller is known else known)


def _start_ms(record: TrialRecord) -> int | None:
    return round(1000 * record.started_at) if record.started_at else None


def trial_end_ms(record: TrialRecord) -> int:
    """Return when a trial ended, as MLflow counts time."""
    return round(1000 * (record.ended_at or time.time()))


def origin_tags(git_commit: str, source: str) -> dict[str, str]:
    """Return what MLflow shows of a run as its user, its source and its version."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's number without a name
        user = ""
    tags = {
        "mlflow.user": user,
        "mlflow.source.name": source,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git_commit.removesuffix("-dirty"),
    }
    return {name: value for name, value in tags.items() if value}


def dataset_of(study: StudyRecord) -> Any:
    """Return a study's data set as MLflow takes it; None where the study names none."""
    from mlflow.entities import Dataset, DatasetInput

    if not study.data:
        return None
    dataset = Dataset(
        name=study.data.rpartition("/")[2],
        digest=study.manifest_hash[:12] or "unknown",
        source_type="local",
        source=json.dumps({"uri": study.data if is_url(study.data) else Path(study.data).as_uri()}),
    )
    return DatasetInput(dataset)


def find_or_make_experiment(client: Any, name: str, artifacts: Path | None) -> str:
    """Return the id of experiment `name`.

    Raises:
        TrackingError: it is in the store's bin.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = (artifacts / mlflow_key(name)).as_uri() if artifacts else None
        return str(client.create_experiment(name, artifact_location=location))
    if experiment.lifecycle_stage == "deleted":
        raise TrackingError(
            f"experiment {name!r} is deleted in the tracking store: restore it there, "
            "clear the bin with `mlflow gc`, or take another study name"
        )
    return str(experiment.experiment_id)


def child_runs(client: Any, experiment_id: str, parent_run_id: str, such: str = "") -> list[Any]:
    """Return every run below a parent, all pages; only `such` where a condition is given."""
    runs: list[Any] = []
    token = None
    below = f"tags.`mlflow.parentRunId` = '{parent_run_id}'"
    while True:
        page = client.search_runs(
            [experiment_id],
            f"{below} and {such}" if such else below,
            max_results=1000,
            page_token=token,
        )
        runs += page
        token = page.token
        if not token:
            return runs


def runs_of_trials(client: Any, experiment_id: str, parent_run_id: str) -> dict[int, Any]:
    """Return the run of each trial below a study's run, by the trial's number."""
    found = child_runs(client, experiment_id, parent_run_id)
    tagged = [(run.data.tags.get("carray.trial"), run) for run in found]
    return {int(number): run for number, run in tagged if number is not None}


def find_study_run(client: Any, name: str) -> Any:
    """Return the newest run of a study itself.

    Raises:
        TrackingError: the store has no such study.
    """
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


def mlflow_key(name: str) -> str:
    """Return `name` with only the characters that MLflow takes in keys."""
    return re.sub(r"[^\w\-. /:]", "_", name)
