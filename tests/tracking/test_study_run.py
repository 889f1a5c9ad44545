"""A trial has one run in MLflow, whichever machine was lost and whatever it had told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from carray.config import build_config
from carray.records import TrialState
from carray.runs_folder import RunsFolder
from carray.tracking import open_tracker, sync_study
from carray.tracking.mlflow_client import client_of, quiet
from carray.tracking.study_run import StudyRun
from tests.tracking.stores import with_store
from tests.tracking.studies import end_trial, make_record, make_study
from tests.tracking.test_tracker import read_mlflow


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunsFolder:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return with_store(tmp_path / "runs")


def live_runs(runs: RunsFolder) -> list[tuple[str, str, int]]:
    """Return (trial, status, epochs told) of all runs but those that were lost."""
    client = client_of(runs)
    with quiet():
        experiment = client.get_experiment_by_name("autumn")
        found = client.search_runs([experiment.experiment_id], "tags.`carray.trial` LIKE '%'")
    told = [run.data.tags.get("carray.epochs_told", "0") for run in found]
    return sorted(
        (run.data.tags["carray.trial"], run.info.status, int(epochs))
        for run, epochs in zip(found, told, strict=True)
    )


@pytest.mark.parametrize("has_number_of", [(), (3,)], ids=["a new number", "a lost one's"])
def test_a_run_that_was_made_though_its_answer_was_lost_is_found_again(
    runs: RunsFolder, monkeypatch: pytest.MonkeyPatch, has_number_of: tuple[int, ...]
) -> None:
    study = make_study(runs).record()
    tracker = open_tracker(runs, str)
    tracker.study_started(study)
    for epochs in has_number_of:
        tracker.epoch_ended(make_record(0, epochs).model_copy(update={"started_at": 900.0}))
    tracker.close()
    tracker = open_tracker(runs, str)
    tracker.study_started(study)
    client = type(client_of(runs))
    make, lost = client.create_run, []

    def lose_an_answer(*args: Any, **kwargs: Any) -> Any:
        made = make(*args, **kwargs)
        if not lost:
            lost.append(made)
            raise ConnectionError("the link was cut")
        return made

    monkeypatch.setattr(client, "create_run", lose_an_answer)
    monkeypatch.setattr("carray.tracking.mlflow_tracker.RETRY_SECONDS", (0.01,) * 3)
    tracker.epoch_ended(make_record(0, 2))
    tracker.close()
    assert lost
    assert live_runs(runs) == [("0000", "RUNNING", 2)]


def test_of_two_runs_of_a_trial_the_next_driver_keeps_the_fuller(
    runs: RunsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study(runs)
    for number, epochs in ((0, 1), (0, 3), (1, 2)):
        with monkeypatch.context() as patch:  # as if the store made a run twice, asked once
            patch.setattr(StudyRun, "_find_trials", lambda run, *found: None)
            tracker = open_tracker(runs, pytest.fail)
            tracker.study_started(folder.record())
            tracker.epoch_ended(make_record(number, epochs))
            tracker.close()
    assert len(live_runs(runs)) == 3
    tracker = open_tracker(runs, pytest.fail)
    tracker.study_started(folder.record())
    tracker.epoch_ended(make_record(0, 4))
    tracker.close()
    assert live_runs(runs) == [("0000", "RUNNING", 4), ("0001", "RUNNING", 2)]


@pytest.mark.parametrize("is_known", [True, False], ids=["as running", "not at all"])
def test_a_trial_that_is_finished_in_the_store_and_not_at_the_url_has_one_run(
    runs: RunsFolder, is_known: bool
) -> None:
    """Its driver was lost before the trial's last record had come to the URL."""
    folder = make_study(runs)
    tracker = open_tracker(runs, pytest.fail)
    tracker.study_started(folder.record())
    record = make_record(0, 3, TrialState.COMPLETE)
    end_trial(folder, record)
    tracker.trial_ended(record, folder.trial(0))
    tracker.close()
    assert live_runs(runs) == [("0000", "FINISHED", 3)]
    older = make_record(0, 1)
    again = older if is_known else older.model_copy(update={"started_at": 1050.0})
    tracker = open_tracker(runs, pytest.fail)
    tracker.study_started(folder.record())
    tracker.trial_started(again)
    tracker.close()
    assert live_runs(runs) == [("0000", "RUNNING", 1)]


def test_a_trial_with_the_number_of_one_that_was_lost_has_a_run_of_its_own(
    runs: RunsFolder,
) -> None:
    """The lost one's driver had told the store of it, and nothing else knows of it."""
    folder = make_study(runs)
    tracker = open_tracker(runs, pytest.fail)
    tracker.study_started(folder.record())
    tracker.epoch_ended(make_record(0, 3))
    tracker.close()
    drawn = {"optimizer.lr": 0.5, "backbone": "resnet18"}
    later = {"started_at": 1050.0, "params": drawn, "config": build_config(drawn)}
    end_trial(folder, make_record(0, 2, TrialState.COMPLETE).model_copy(update=later))
    sync_study(runs, folder)
    (run,) = read_mlflow(runs).values()
    assert (run.params["optimizer.lr"], len(run.curves)) == ("0.5", 2)
    client = client_of(runs)
    with quiet():
        experiment = client.get_experiment_by_name("autumn")
        (lost,) = client.search_runs([experiment.experiment_id], "tags.`carray.kind` = 'lost'")
    assert (lost.info.status, lost.data.params["optimizer.lr"]) == ("KILLED", "0.01")


def test_every_run_says_which_data_set_it_is_of(runs: RunsFolder) -> None:
    study = make_study(runs).record().model_copy(update={"data": "/photos/Meine Autos"})
    tracker = open_tracker(runs, pytest.fail)
    tracker.study_started(study)
    tracker.trial_started(make_record(0, 0))
    tracker.close()
    client = client_of(runs)
    with quiet():
        experiment = client.get_experiment_by_name("autumn")
        found = client.search_runs([experiment.experiment_id])
    named = [[each.dataset.name for each in run.inputs.dataset_inputs] for run in found]
    assert named == [["Meine Autos"], ["Meine Autos"]]
