"""Every tracker keeps the contract; a study can be had back from the store alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carray.cli.log import log_on_stderr
from carray.config import config_paths
from carray.costs import Held
from carray.errors import TrackingError
from carray.records import StudyFolder, TrialState
from carray.runs_folder import RunsFolder
from carray.tracking import (
    SubprocessTracker,
    Tracker,
    download_study,
    open_tracker,
    sync_study,
)
from carray.tracking.mlflow_client import client_of, quiet
from carray.tracking.sync import study_files
from tests.tracking.memory import MemoryTracker, ShownRun
from tests.tracking.stores import with_store
from tests.tracking.studies import end_trial, make_record, make_study


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunsFolder:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return with_store(tmp_path / "runs")


def read_mlflow(runs: RunsFolder) -> dict[int, ShownRun]:
    """Read every trial's run back, as the store shows it."""
    client = client_of(runs)
    with quiet():
        experiment = client.get_experiment_by_name("autumn")
        found = client.search_runs([experiment.experiment_id], "tags.`carray.trial` LIKE '%'")
        return {int(run.data.tags["carray.trial"]): read_run(client, run) for run in found}


def read_run(client: Any, run: Any) -> ShownRun:
    curves: dict[int, dict[str, float]] = {}
    for name in run.data.metrics:
        for point in client.get_metric_history(run.info.run_id, name):
            assert name not in curves.setdefault(point.step, {}), "a point was told twice"
            curves[point.step][name] = point.value
    return ShownRun(
        run.info.run_name,
        run.data.tags,
        run.data.params,
        tuple(curves[step] for step in sorted(curves)),
        tuple(file.path for file in client.list_artifacts(run.info.run_id)),
    )


def run_study(tracker: Tracker, folder: StudyFolder) -> None:
    study = folder.record()
    tracker.study_started(study, study_files(folder))
    tracker.trial_started(make_record(0, 0))
    tracker.trial_started(make_record(1, 0))
    for epochs in (1, 2, 3):
        tracker.epoch_ended(make_record(0, epochs))
    for number, state in ((0, TrialState.COMPLETE), (1, TrialState.PRUNED)):
        record = make_record(number, 4 - number, state)
        end_trial(folder, record)
        tracker.trial_ended(record, folder.trial(number))
    tracker.study_ended(study.model_copy(update={"state": "complete", "ended_at": 1200.0}))


@dataclass
class Told:
    """A study that a tracker was told from its start to its end, and what it then shows."""

    kind: str
    runs: RunsFolder
    folder: StudyFolder
    memory: MemoryTracker = field(default_factory=MemoryTracker)
    trials: dict[int, ShownRun] = field(default_factory=dict)

    def tell(self) -> dict[int, ShownRun]:
        """Tell it all, by a new tracker over the same store; return every trial's run."""
        tracker: Tracker = self.memory
        if self.kind != "memory":
            opened = SubprocessTracker if self.kind == "apart" else open_tracker
            tracker = opened(self.runs, pytest.fail)
        run_study(tracker, self.folder)
        tracker.close()
        return dict(self.memory.runs) if self.kind == "memory" else read_mlflow(self.runs)


@pytest.fixture(scope="module", params=["memory", "mlflow", "apart"])
def told(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Told:
    runs = with_store(tmp_path_factory.mktemp("told") / "runs")
    told = Told(request.param, runs, make_study(runs))
    told.trials = told.tell()
    return told


def test_trials_are_runs_with_drawn_params_tags_and_curves(told: Told) -> None:
    trials = told.trials
    assert sorted(trials) == [0, 1]
    drawn = trials[0].tags["carray.drawn"].split(", ")
    assert {name: trials[0].params[name] for name in drawn} == {
        "optimizer.lr": "0.01",
        "backbone": "resnet18",
    }
    assert set(trials[0].params) == set(config_paths())
    assert trials[1].tags["carray.state"] == "pruned"
    assert trials[1].tags["carray.reason"] == "stopped at rung 2"
    assert trials[0].tags["carray.manifest_hash"] == "abc"
    assert [row["val/log_loss"] for row in trials[0].curves] == [1.0, 0.5, 9.0, 0.25]


def test_a_run_shows_its_best_epoch_beside_its_last(told: Told) -> None:
    at_third = told.trials[0].curves[2]
    assert at_third["val/log_loss"] == 9.0
    assert at_third["best/val/log_loss"] == 0.5
    assert at_third["best/epoch"] == 2


def test_record_and_logits_go_up_with_the_trial(told: Told) -> None:
    assert {"record.json", "logits.npz"} <= set(told.trials[0].files)


def test_telling_a_study_twice_changes_nothing(told: Told) -> None:
    after, before = told.tell(), told.trials
    assert {n: run.curves for n, run in after.items()} == {n: r.curves for n, r in before.items()}


def test_the_study_is_the_parent_of_its_trials(runs: RunsFolder) -> None:
    tracker = open_tracker(runs, pytest.fail)
    run_study(tracker, make_study(runs))
    tracker.close()
    client = client_of(runs)
    with quiet():
        experiment = client.get_experiment_by_name("autumn")
        parents = client.search_runs([experiment.experiment_id], "tags.`carray.kind` = 'study'")
        children = client.search_runs([experiment.experiment_id], "tags.`carray.trial` LIKE '%'")
        files = {file.path for file in client.list_artifacts(parents[0].info.run_id)}
    assert len(parents) == 1
    assert parents[0].info.status == "FINISHED"
    assert parents[0].data.metrics["best/val/log_loss"] == 0.25
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert {"study.json", "space.yaml", "labels.npz"} <= files


def test_a_study_comes_back_from_the_store_alone(runs: RunsFolder, tmp_path: Path) -> None:
    here = make_study(runs)
    run_study(open_and_close := open_tracker(runs, pytest.fail), here)
    open_and_close.close()
    kept = tmp_path / "kept"
    shutil.move(here.path, kept)
    there = download_study(runs, "autumn")
    assert there.record().classes == ("소나타", "A/B")
    assert there.labels("val").tolist() == [0, 1, 0]
    assert [record for _, record in there.trials()] == [
        record for _, record in StudyFolder(kept).trials()
    ]
    assert np.array_equal(there.trial(0).logits("val"), np.ones((3, 2)))


def test_a_study_that_the_store_lacks_is_named(runs: RunsFolder) -> None:
    run_study(tracker := open_tracker(runs, pytest.fail), make_study(runs))
    tracker.close()
    with pytest.raises(TrackingError, match=r"no study 'autumm'.*did you mean 'autumn'"):
        download_study(runs, "autumm")


def test_sync_sends_a_study_that_was_never_tracked(runs: RunsFolder) -> None:
    folder = make_study(runs)
    for number in (0, 1):
        end_trial(folder, make_record(number, 2, TrialState.COMPLETE))
    assert sync_study(runs, folder) == 2
    assert sorted(read_mlflow(runs)) == [0, 1]


def test_a_server_that_does_not_answer_is_refused_within_seconds(
    runs: RunsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(TrackingError, match=r"127.0.0.1:9 doesn't answer"):
        open_tracker(runs)
    assert time.monotonic() - start < 8


def test_a_first_study_makes_its_store_in_silence(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from carray.runs_folder import RunsFolder;"
        "from tests.tracking.studies import make_study; from carray.tracking import sync_study;"
        f"runs = RunsFolder(Path({str(tmp_path / 'fresh')!r}));"
        "print(sync_study(runs, make_study(runs)))"
    )
    environment = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout == "0\n"
    assert done.stderr == ""


def test_an_experiment_in_the_bin_is_told(runs: RunsFolder) -> None:
    run_study(tracker := open_tracker(runs, pytest.fail), folder := make_study(runs))
    tracker.close()
    client = client_of(runs)
    with quiet():
        client.delete_experiment(client.get_experiment_by_name("autumn").experiment_id)
    with pytest.raises(TrackingError, match="take another study name"):
        open_tracker(runs).study_started(folder.record())


def test_a_store_that_fails_later_is_told_once_and_loses_nothing(
    runs: RunsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study(runs)
    troubles: list[str] = []
    tracker = open_tracker(runs, troubles.append)
    tracker.study_started(folder.record())
    client = type(client_of(runs))
    log_batch = client.log_batch
    attempts = 0

    def broken_twice(*args: Any, **kwargs: Any) -> Any:
        nonlocal attempts
        attempts += 1
        if attempts <= 2:
            raise ConnectionError("gone")
        return log_batch(*args, **kwargs)

    monkeypatch.setattr(client, "log_batch", broken_twice)
    monkeypatch.setattr("carray.tracking.mlflow_tracker.RETRY_SECONDS", (0.01, 0.01, 0.01))
    start = time.monotonic()
    tracker.epoch_ended(make_record(0, 2))
    assert time.monotonic() - start < 0.1
    tracker.close()
    assert len(troubles) == 1
    assert "the study goes on" in troubles[0]
    assert len(read_mlflow(runs)[0].curves) == 2


def test_what_never_arrived_is_counted_when_the_tracker_closes(
    runs: RunsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    troubles: list[str] = []
    tracker = open_tracker(runs, troubles.append)
    tracker.study_started(make_study(runs).record())

    def gone(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("gone")

    monkeypatch.setattr(type(client_of(runs)), "log_batch", gone)
    monkeypatch.setattr("carray.tracking.mlflow_tracker.RETRY_SECONDS", (0.01, 0.01))
    tracker.trial_started(make_record(0, 0))
    tracker.close()
    assert "1 run didn't reach" in troubles[-1]
    assert "carray sync" in troubles[-1]


def test_sending_a_study_outlasts_a_driver_patience_and_shows_how_far_it_is(
    runs: RunsFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(runs)
    for number in (0, 1, 2):
        end_trial(folder, make_record(number, 2, TrialState.COMPLETE))
    monkeypatch.setattr("carray.tracking.mlflow_tracker.CLOSE_SECONDS", 0.0)
    monkeypatch.setattr("carray.progress.LINE_EVERY_SECONDS", 0.0)
    with log_on_stderr():
        assert sync_study(runs, folder) == 3
    assert sorted(read_mlflow(runs)) == [0, 1, 2]
    last = capsys.readouterr().err.splitlines()[-1]
    done, total = re.findall(r"(\d) of (\d) runs", last)[0]
    assert done == total
    assert int(total) >= 4


def test_a_study_that_was_not_sent_whole_is_not_called_sent(
    runs: RunsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study(runs)
    end_trial(folder, make_record(0, 2, TrialState.COMPLETE))

    def gone(*args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("gone")

    monkeypatch.setattr(type(client_of(runs)), "log_batch", gone)
    monkeypatch.setattr("carray.tracking.mlflow_tracker.RETRY_SECONDS", (0.01, 0.01))
    with pytest.raises(
        TrackingError, match=r"runs of study autumn didn't reach .* the same command sends"
    ):
        sync_study(runs, folder)


def sent_by(call: Callable[[], object], runs: RunsFolder, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return [(what was called, the run)] of the calls that write."""
    client, calls = type(client_of(runs)), []

    def counted(name: str) -> None:
        original = getattr(client, name)

        def method(self: Any, run_id: str, *args: Any, **kwargs: Any) -> Any:
            calls.append((name, run_id))
            return original(self, run_id, *args, **kwargs)

        monkeypatch.setattr(client, name, method)

    with monkeypatch.context() as patch:
        monkeypatch = patch
        for name in ("log_batch", "log_artifacts", "log_artifact", "set_terminated", "log_metric"):
            counted(name)
        call()
    return calls


def test_a_second_sync_sends_only_what_has_changed(
    runs: RunsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study(runs)
    costs = {"held": Held(cpus=1.0), "network_cost": {"latency": 2.0}}
    for number in (0, 1):
        record = make_record(number, 3, TrialState.COMPLETE).model_copy(update=costs)
        end_trial(folder, record)
    sync_study(runs, folder)
    before = read_mlflow(runs)
    parents = {run for _, run in sent_by(lambda: sync_study(runs, folder), runs, monkeypatch)}
    assert len(parents) == 1, "nothing but the study itself is told again"
    assert read_mlflow(runs) == before
    folder.trial(1).write_logits({"val": np.ones((3, 2)), "blend": np.zeros((40, 2))})
    calls = sent_by(lambda: sync_study(runs, folder), runs, monkeypatch)
    assert sorted(name for name, run in calls if run not in parents) == [
        "log_artifacts",
        "log_batch",
        "set_terminated",
    ], "one call each: a server takes a fifth of a second for it where eight threads write"
    assert len({run for _, run in calls} - parents) == 1


def test_a_sync_that_was_cut_off_goes_on_and_doubles_nothing(
    runs: RunsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study(runs)
    for number in (0, 1, 2):
        end_trial(folder, make_record(number, 3, TrialState.COMPLETE))
    client = type(client_of(runs))
    ended: list[str] = []

    def cut_off(self: Any, run_id: str, *args: Any, **kwargs: Any) -> None:
        ended.append(run_id)
        raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(client, "set_terminated", cut_off)
        patch.setattr("carray.tracking.mlflow_tracker.RETRY_SECONDS", (0.01, 0.01))
        with pytest.raises(TrackingError, match="the same command sends what is missing"):
            sync_study(runs, folder)
    calls = sent_by(lambda: sync_study(runs, folder), runs, monkeypatch)
    assert ended[0] in {run for _, run in calls}, "it had not been said to have ended"
    trials = read_mlflow(runs)
    assert sorted(trials) == [0, 1, 2]
    assert all(len(run.curves) == 3 for run in trials.values())
    assert all(
        set(run.files) >= {"record.json", "logits.npz", "config.yaml"} for run in trials.values()
    )


def test_what_trials_and_their_study_cost_is_in_their_runs(runs: RunsFolder) -> None:
    folder, lane = make_study(runs), Held(cpus=2.0, hourly=3600.0, currency="eur")
    tracker = open_tracker(runs, pytest.fail)
    tracker.study_started(folder.record(), study_files(folder))
    record = make_record(0, 3, TrialState.COMPLETE).model_copy(update={"held": lane})
    end_trial(folder, record)
    tracker.trial_ended(record, folder.trial(0))
    spent = {"state": "complete", "budget_spent": True, "cost": lane.cost(60)}
    tracker.study_ended(folder.record().model_copy(update=spent))
    tracker.close()
    with quiet():
        client = client_of(runs)
        found = client.search_runs([client.get_experiment_by_name("autumn").experiment_id])
    costs = {
        run.data.tags["carray.state"]: {
            name: value for name, value in run.data.metrics.items() if name.startswith("cost/")
        }
        for run in found
    }
    assert costs == {
        "complete": {"cost/cpu_seconds": 9.0, "cost/eur": 4.5},
        "budget spent": {"cost/cpu_seconds": 120.0, "cost/eur": 60.0},
    }
    assert {run.info.status for run in found} == {"FINISHED"}
