"""A student is trained on a teacher's answers, and packaged with what it is worth."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from carray.analysis.distillation import distill_model, student_config
from carray.config import DistillConfig, TrialConfig, build_config
from carray.errors import DataError, RecordError
from carray.inference.card import Card
from carray.inference.package import write_package
from carray.inference.predictor import load_model
from carray.reports.distillation import distillation_lines
from carray.runs_folder import RunsFolder
from carray.training.teacher import check_teacher
from tests.reports.studies import show_lines
from tests.trained import RECIPE, Trained

QUICK = {name: value for name, value in RECIPE.items() if name != "backbone"} | {"epochs": 1}


@pytest.fixture
def runs(trained: Trained, tmp_path: Path) -> Path:
    """Return runs with the package `toy` of two trials."""
    shutil.copytree(trained.runs, tmp_path / "runs")
    trial = trained.study.trial(0)
    write_package(tmp_path / "runs" / "models" / "toy", trained.study.record(), [trial])
    return tmp_path / "runs"


def test_a_student_is_judged_beside_its_teacher_and_labels_alone(
    trained: Trained, runs: Path
) -> None:
    epochs: list[str] = []
    for _ in range(2):  # the second call trains nothing
        found = distill_model(
            *("toy", "test_resnet"),
            overrides=QUICK,
            runs=runs,
            on_epoch=lambda record: epochs.append(record.name),
        )
    assert epochs == [f"toy-students/{number:04d}" for number in range(2)]
    assert [row.what for row in found.rows] == ["toy", "student", "labels alone"]
    assert found.images == len(trained.manifest.rows("blend"))
    gain = found.rows[2].log_loss.value - found.rows[1].log_loss.value
    assert found.against_alone.log_loss.value == pytest.approx(gain)
    assert found.rows[1].milliseconds == found.rows[2].milliseconds > 0
    assert found.package is not None
    card = Card.read(found.package / "card.json")
    assert [member.trial for member in card.members] == [found.trial]
    assert np.isclose(
        card.results["distilled"]["rows"][1]["log_loss"]["value"], found.rows[1].log_loss.value
    )
    shown = "\n".join(show_lines(RunsFolder(runs), found.package.name))
    assert "a student of toy" in shown
    assert f"{found.rows[2].log_loss.value:.4f}" in shown
    assert re.search(
        "distill.teacher +toy$", "\n".join(show_lines(RunsFolder(runs), found.trial)), re.M
    )
    text = "\n".join(distillation_lines(found))
    assert "The student against labels alone: log-loss gain" in text
    assert "carray predict toy-test_resnet IMAGES" in text


def test_a_student_takes_the_configuration_that_a_search_found(
    trained: Trained, runs: Path
) -> None:
    toy, where = runs / "models" / "toy", RunsFolder(runs)
    searched = where.find_trial("single/0001").record().config

    def student(into: str) -> TrialConfig:
        return student_config(
            load_model(toy, "cpu"), toy, into, {"epochs": 3}, trained.manifest, where
        )

    taught = {"epochs": 3, "distill.teacher": str(toy)}
    assert student("single/0001") == build_config(taught, searched)
    with pytest.raises(RecordError, match="has no trial 9"):
        student("single/0009")


def test_a_teacher_that_may_know_what_the_student_is_judged_on_is_refused(
    trained: Trained, runs: Path, toy_data: Path
) -> None:
    toy = runs / "models" / "toy"
    on_fold = build_config({"fold": 0, "distill.teacher": str(toy)})
    with pytest.raises(DataError, match=r"was trained on images of fold 0.*distil without fold"):
        check_teacher(on_fold, trained.manifest)
    card = Card.read(toy / "card.json")
    card.model_copy(update={"manifest_hash": "other"}).write(toy / "card.json")
    with pytest.raises(DataError, match=r"was trained on data set other.*trained on the same data"):
        check_teacher(on_fold.model_copy(update={"fold": None}), trained.manifest)
    nowhere = on_fold.model_copy(update={"distill": DistillConfig(teacher="nowhere")})
    with pytest.raises(RecordError, match=r"distill\.teacher is no model package: nowhere"):
        check_teacher(nowhere, trained.manifest)
