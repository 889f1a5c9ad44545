"""An ensemble in MLflow: a run with figures, a model that loads; and one built from the store."""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from carray.analysis.explain import explain
from carray.cli.app import app
from carray.ensemble import build_ensemble
from carray.ensemble.publish import tracked_values
from carray.ensemble.sent_weights import send_best_weights
from carray.inference.predictor import load_model
from carray.runs_folder import RunsFolder
from carray.tracking import sync_study
from carray.tracking.mlflow_client import client_of, quiet
from tests.inference.packages import draw_images, make_real_study
from tests.tracking.stores import with_store


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunsFolder:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return with_store(tmp_path / "runs")


def test_the_logged_model_predicts_what_the_package_does(runs: RunsFolder, tmp_path: Path) -> None:
    make_real_study(runs.path)
    made = build_ensemble(runs=runs.path)
    assert "MLFLOW_TRACKING_URI" not in os.environ
    images = draw_images(tmp_path / "images")
    client = client_of(runs)
    with quiet():
        import mlflow
        from mlflow.exceptions import MlflowException

        mlflow.set_tracking_uri(f"sqlite:///{runs.tracking_file}")
        loaded = mlflow.pyfunc.load_model(made.model_uri)
        frame = loaded.predict(pd.DataFrame({"path": [str(image) for image in images]}))
        champion = mlflow.pyfunc.load_model("models:/autumn@champion")
        texts = [base64.b64encode(images[0].read_bytes()).decode(), images[1].read_bytes()]
        sent = champion.predict(texts)
        path, encoded = str(images[1]), base64.encodebytes(images[0].read_bytes()).decode()
        for body in (
            {"dataframe_split": {"columns": ["image"], "data": [[texts[0]], [path]]}},
            {"dataframe_records": [{"image": encoded}, {"image": path}]},
            {"inputs": [encoded, path]},
        ):
            answer = scored(champion, json.dumps(body), "application/json")
            assert np.allclose(answer, frame.to_numpy()[:2], atol=1e-6), body
        csv = scored(champion, f"image\n{texts[0]}\n", "text/csv")
        assert np.allclose(csv, frame.to_numpy()[:1], atol=1e-6)
        with pytest.raises(MlflowException, match="'hello' is no file here and no base64"):
            scored(champion, "image\nhello\n", "text/csv")
        example = champion.input_example
        assert len(champion.predict(example)) == len(example) == 1
        assert loaded.metadata.signature.inputs is not None
        experiment = client.get_experiment_by_name("autumn")
        run = client.search_runs([experiment.experiment_id], "tags.`carray.kind` = 'model'")[0]
        mlflow.set_tracking_uri("")
    assert list(frame.columns) == list(made.classes)
    assert np.allclose(frame.to_numpy(), made.predict(images), atol=1e-6)
    assert np.allclose(sent.to_numpy(), frame.to_numpy()[:2], atol=1e-6)
    assert made.test is not None
    assert run.data.metrics["test/top1"] == made.test.ensemble.top1.value
    assert run.data.params["rule"] == made.rule
    assert run.info.run_name == f"{made.name}, ensemble of {len(made.packaged)}"
    assert not list(runs.tracking_artifacts.rglob("*.pkl"))
    drawn = explain(made.name, images, tmp_path / "out", runs=runs.path)
    assert drawn.note.endswith(f"pictures of run {run.info.run_id}")
    pictures = {file.path for file in client.list_artifacts(run.info.run_id, "pictures")}
    assert pictures == {f"pictures/{file.name}" for file in (tmp_path / "out").iterdir()}
    assert len(pictures) == len(images) + 1


def test_a_model_is_logged_whatever_it_and_its_folder_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = with_store(tmp_path / "Prüfung #1" / "runs")
    make_real_study(runs.path)
    first = build_ensemble(runs=runs.path, name="Größe+1")
    second = build_ensemble(runs=runs.path, name="Größe+1", rule="hard vote", open_test=False)
    assert second.package is not None
    assert second.package.name == "Größe+1@2"
    assert first.model_uri, first.notes
    assert second.model_uri, second.notes


def scored(model: Any, body: str, kind: str) -> list[list[float]]:
    """Return what `mlflow models serve` answers to a request."""
    from mlflow.pyfunc.scoring_server import invocations

    schema = model.metadata.get_input_schema()
    answer = invocations(body, kind, model, schema)
    return [list(row.values()) for row in json.loads(answer.response)["predictions"]]


def test_the_champion_is_the_best_model_not_the_newest(runs: RunsFolder) -> None:
    make_real_study(runs.path)
    first = build_ensemble(runs=runs.path)
    worse = build_ensemble(runs=runs.path, name="worse", rule="hard vote", open_test=False)
    assert tracked_values(first)["blend/log_loss"] < tracked_values(worse)["blend/log_loss"]
    champion = client_of(runs).get_model_version_by_alias("autumn", "champion")
    assert str(champion.version) == "1"


def test_a_model_that_0_1_logged_still_loads(
    runs: RunsFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code was copied into MLflow, and imports `load_model` from where it was then.

    Its signature came from type hints: what it is given isn't made a frame.
    """
    entry = tmp_path / "served.py"
    entry.write_text(
        "from carray.ensemble.package import load_model\n"
        "from carray.tracking import serve\n\nserve(load_model)\n"
    )
    monkeypatch.setattr("carray.ensemble.publish.MLFLOW_ENTRY", entry)
    make_real_study(runs.path)
    made = build_ensemble(runs=runs.path)
    images = draw_images(tmp_path / "images")
    with quiet():
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{runs.tracking_file}")
        [card] = runs.tracking_artifacts.rglob("MLmodel")
        card.write_text(card.read_text().replace("from_type_hint: false", "from_type_hint: true"))
        loaded = mlflow.pyfunc.load_model(made.model_uri)
        frame = loaded.predict(pd.DataFrame({"path": [str(image) for image in images]}))
        listed = loaded.predict([image.read_bytes() for image in images])
        mlflow.set_tracking_uri("")
    assert loaded.metadata._is_signature_from_type_hint()
    assert np.allclose(frame.to_numpy(), made.predict(images), atol=1e-6)
    assert np.allclose(frame.to_numpy(), listed.to_numpy(), atol=1e-6)


def test_where_a_trial_looks_goes_to_its_run_unless_unwanted(
    runs: RunsFolder, tmp_path: Path
) -> None:
    sync_study(runs, make_real_study(runs.path))
    images = draw_images(tmp_path / "images", count=1)
    aside = explain("autumn/0001", images, tmp_path / "aside", runs=runs.path, track=False)
    drawn = explain("autumn/0001", images, tmp_path / "out", runs=runs.path)
    client = client_of(runs)
    with quiet():
        run_id = drawn.note.rsplit(" ", 1)[1]
        assert client.get_run(run_id).data.tags["carray.trial"] == "0001"
        assert len(client.list_artifacts(run_id, "pictures")) == 2
    coarse = "its last feature map has 3x3 cells; the overlay is of an earlier one of 12x12"
    assert aside.note == f"autumn/0001: {coarse}"


def test_an_ensemble_can_be_built_from_the_store_alone(runs: RunsFolder, tmp_path: Path) -> None:
    folder = make_real_study(runs.path)
    sync_study(runs, folder)
    here = build_ensemble(runs=runs.path, logits_only=True)
    shutil.rmtree(folder.path)
    there = build_ensemble("autumn", runs=runs.path, logits_only=True, from_tracking=True)
    assert there.rules == here.rules
    assert there.test == here.test


def test_a_server_has_what_a_package_takes_and_a_store_beside_the_runs_gets_no_weights(
    runs: RunsFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_real_study(runs.path)
    sync_study(runs, folder)
    assert send_best_weights(runs, folder) == (0, "")
    shutil.move(runs.tracking_file, tmp_path / "server.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'server.db'}")
    assert send_best_weights(runs, folder) == (3, "")
    fresh = tmp_path / "fresh"
    url = os.environ.pop("MLFLOW_TRACKING_URI")
    words = ["ensemble", "autumn", "--from-tracking", url, "--runs", str(fresh), "--no-test"]
    done = CliRunner().invoke(app, [*words, "--no-track", "--json"])
    assert done.exit_code == 0, done.output
    made = Path(json.loads(done.output)["package"])
    assert made.is_relative_to(fresh)
    model = load_model(made)
    assert model.predict(draw_images(tmp_path / "images", 2)).shape == (2, len(model.classes))
    os.environ["MLFLOW_TRACKING_URI"] = "sqlite:////nowhere/at/all.db"
    count, trouble = send_best_weights(runs, folder)
    assert count == 0
    assert trouble.startswith("weights aren't in the tracking store: ")
