"""Pictures made later go to the run of what they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from carray.records import TrialState
from carray.tracking import open_tracker
from carray.tracking.artifacts import FOLDER, STUDY_ITSELF, attach
from carray.tracking.mlflow_client import client_of, quiet
from tests.tracking.stores import with_store
from tests.tracking.studies import end_trial, make_record, make_study


def test_a_number_is_a_trial_and_a_name_a_package_even_one_of_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = with_store(tmp_path / "runs")
    folder, record = make_study(runs), make_record(24, 2, TrialState.COMPLETE)
    end_trial(folder, record)
    tracker = open_tracker(runs, pytest.fail)
    tracker.study_started(folder.record())
    tracker.trial_ended(record, folder.trial(24))
    tracker.close()
    client = client_of(runs)
    with quiet():
        experiment = client.get_experiment_by_name("autumn").experiment_id
        tags = {"carray.study": "autumn", "carray.kind": "model"}
        model = client.create_run(experiment, tags=tags, run_name="0024").info.run_id
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"drawn")

    of_trial = attach(runs, "autumn", 24, [picture])
    assert client.get_run(of_trial).data.tags["carray.trial"] == "0024"
    assert attach(runs, "autumn", "0024", [picture]) == model
    assert attach(runs, "autumn", "2024", [picture]) == ""
    of_study = attach(runs, "autumn", STUDY_ITSELF, [picture])
    assert of_study not in ("", model, of_trial)
    for run in (of_trial, model):
        assert [file.path for file in client.list_artifacts(run, FOLDER)] == [
            f"{FOLDER}/picture.png"
        ]
