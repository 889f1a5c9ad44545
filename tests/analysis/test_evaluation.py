"""`carray evaluate`: a model class by class, on its study's splits and on new images."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from carray.analysis.evaluation import evaluate
from carray.cli.app import app
from carray.ensemble.result import AS_IT_IS
from carray.errors import ConfigError, DataError, RecordError
from carray.inference.level_answers import LevelRequest
from carray.inference.predict import predict_to_csv
from carray.predictions.logits import log_softmax
from carray.predictions.test_access import accesses
from carray.reports.evaluation import evaluation_lines
from carray.runs_folder import RunsFolder
from tests.trained import Trained

PATTERN = "{make} {model}"  # toy cars have no year


def test_a_trial_is_judged_from_its_logits_and_a_look_at_test_is_recorded(
    trained: Trained, tmp_path: Path
) -> None:
    unopened = shutil.ignore_patterns("openings")  # other tests may have looked
    runs = shutil.copytree(trained.runs, tmp_path / "runs", ignore=unopened)
    found = evaluate("single/0000", runs=runs)
    labels = trained.study.labels("val")
    log_p = log_softmax(trained.study.trial(0).logits("val"))
    assert found.scores.top1.value == pytest.approx(np.mean(log_p.argmax(axis=1) == labels))
    assert found.images == sum(each.images for each in found.per_class.classes) == len(labels)
    assert found.per_class.weighted.recall.value == pytest.approx(found.scores.top1.value)
    assert found.models_that_opened_test == 0
    assert evaluate("single/0000", split="test", runs=runs).models_that_opened_test == 1
    manifest = trained.manifest
    assert [one.model for one in accesses(RunsFolder(runs), manifest.hash)] == ["single/0000"]


def test_a_package_is_judged_as_its_trial_is(trained: Trained, tmp_path: Path) -> None:
    runs = shutil.copytree(trained.runs, tmp_path / "runs")
    shutil.rmtree(runs / "models", ignore_errors=True)  # what other tests have packaged
    words = ["evaluate", "single-0000", "--out", str(tmp_path / "e"), "--runs", str(runs)]
    with pytest.raises(RecordError, match="there is no model 'single-0000'"):
        evaluate("single-0000", runs=runs)  # it isn't packaged yet
    predict_to_csv("single/0000", [trained.images], tmp_path / "p.csv", runs=runs)
    done = CliRunner().invoke(app, [*words, "--label-parts", PATTERN, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    alone = evaluate("single/0000", runs=runs)
    assert told["scores"]["log_loss"]["value"] == pytest.approx(alone.scores.log_loss.value)
    assert AS_IT_IS in alone.notes and AS_IT_IS not in told["notes"]
    assert [one["level"] for one in told["levels"]] == ["make", "model"]
    assert Path(told["picture"]).stat().st_size > 5000
    assert len(Path(told["table"]).read_text().splitlines()) == 10


def test_new_images_are_judged_in_the_models_classes(trained: Trained, tmp_path: Path) -> None:
    runs = shutil.copytree(trained.runs, tmp_path / "runs")
    new, names = tmp_path / "new", trained.manifest.classes
    rows = trained.manifest.rows("test")
    included = trained.manifest.included.iloc[rows]
    for path, label in zip(included["path"], included["label"], strict=True):
        target = new / label.replace(" ", "_") / "-".join(Path(path).parts[-2:])
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (new / "a truck").mkdir()
    shutil.copy(included["path"].iloc[0], new / "a truck" / "1.png")
    found = evaluate("single/0000", new, runs=runs)
    assert found.images == len(rows)
    assert any(
        "1 image was left out, of classes that the model doesn't know" in n for n in found.notes
    )
    own = evaluate("single/0000", split="test", runs=runs)
    assert found.scores.top1.value == pytest.approx(own.scores.top1.value, abs=2 / len(rows))
    assert found.models_that_opened_test == 0
    assert any(f"own data: {len(rows)} in test; a look" in note for note in found.notes)
    trained_on = trained.manifest.included["path"].iloc[trained.manifest.rows("train")[0]]
    shutil.copy(trained_on, next(path for path in new.iterdir() if path.name != "a truck"))
    again = evaluate("single/0000", new, runs=runs)
    assert any("1 in train, " in note and "flatters it" in note for note in again.notes)
    (tmp_path / "strange" / "x").mkdir(parents=True)
    shutil.copytree(new / names[0].replace(" ", "_"), tmp_path / "strange" / "y")
    shutil.copy(included["path"].iloc[0], tmp_path / "strange" / "x" / "1.png")
    with pytest.raises(DataError, match=r"none of the classes of .*, such as '[xy]'"):
        evaluate("single/0000", tmp_path / "strange", runs=runs)


def test_one_image_is_judged_without_an_interval(trained: Trained, tmp_path: Path) -> None:
    """And without a warning, which would be an error here."""
    first = trained.manifest.included.iloc[0]
    folder = tmp_path / "one" / str(first["label"])
    folder.mkdir(parents=True)
    shutil.copy(first["path"], folder)
    found = evaluate("single/0000", tmp_path / "one", runs=trained.runs)
    lines = evaluation_lines(found)
    assert any(line.startswith("balanced accuracy ") and "no interval" in line for line in lines)
    assert "nan]" not in "".join(lines)


def test_a_table_whose_images_lie_elsewhere_is_told_what_this_command_can_do(
    trained: Trained, tmp_path: Path
) -> None:
    table = tmp_path / "new.csv"
    images = trained.manifest.included.iloc[::4][["path", "label"]]
    images.assign(path=images["path"].map(os.path.basename)).to_csv(table, index=False)
    with pytest.raises(DataError, match="move the table into its images' folder or write whole"):
        evaluate("single/0000", table, runs=trained.runs)
    images.to_csv(table, index=False)
    assert evaluate("single/0000", table, runs=trained.runs).images == len(images)


def test_what_cannot_be_judged_is_refused(trained: Trained) -> None:
    with pytest.raises(RecordError, match="there is no model 'sngle'"):
        evaluate("sngle", runs=trained.runs)
    with pytest.raises(RecordError, match="there is no study 'other'"):
        evaluate("other/0000", runs=trained.runs)


def test_predictions_go_as_deep_as_is_sure(trained: Trained, tmp_path: Path) -> None:
    runs = shutil.copytree(trained.runs, tmp_path / "runs")
    images, out = [trained.images / "Aster Pip"], tmp_path / "p.csv"
    with pytest.raises(ConfigError, match="tell no make, model or year: say with --label-parts"):
        predict_to_csv("single/0000", images, out, level=LevelRequest("auto"), runs=runs)
    with pytest.raises(ConfigError, match="--by 'brand' must be auto or one of make"):
        LevelRequest("brand")
    asked = LevelRequest("auto", 0.6, PATTERN)
    done = predict_to_csv("single/0000", images, out, level=asked, runs=runs)
    assert any(note.startswith("probabilities are calibrated: temp") for note in done.notes)
    for row in done.rows:
        deep = {"": "unsure", "make": row["answer"].split(",")[0], "model": row["class_1"]}
        assert row["answer"].startswith(deep[row["level"]])
        assert (float(row["probability"]) >= 0.6) == bool(row["level"])
