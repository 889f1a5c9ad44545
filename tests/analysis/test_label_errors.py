"""Labels that the folds doubt: planted wrong ones are found, and the file can be excluded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from carray.analysis.label_errors import find_label_issues
from carray.cli.app import app
from carray.data.preparation.prepare import prepare
from carray.training.cross_validation import train_folds
from tests.inference.packages import draw_classes
from tests.trained import RECIPE


def test_images_that_another_class_claims_as_its_own_are_doubtful() -> None:
    p_NC = np.array(
        [[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.45, 0.55], [0.95, 0.05]], np.float32
    )
    labels = np.array([0, 0, 0, 1, 1, 1])
    usual = (0.5, (0.8 + 0.55 + 0.05) / 3)
    assert p_NC[labels == 0, 0].mean() == pytest.approx(usual[0])
    places, others = find_label_issues(p_NC, labels)
    assert places.tolist() == [5, 2], "the most doubtful first"
    assert others.tolist() == [0, 1]
    hard = np.array([[0.2, 0.8], [0.4, 0.6], [0.1, 0.9]], np.float32)
    assert find_label_issues(hard, np.array([0, 0, 1]))[0].tolist() == [], "hard, but as usual"


def test_a_class_without_images_claims_none() -> None:
    places, _ = find_label_issues(np.array([[0.1, 0.2, 0.7]], np.float32), np.array([0]))
    assert places.tolist() == []


def test_planted_labels_are_found_and_can_be_left_out(tmp_path: Path) -> None:
    images = draw_classes(tmp_path / "images", images_per_class=24)
    files = sorted(images.glob("*/*.png"))
    splits = ["val" if number % 4 == 0 else "train" for number in range(len(files))]
    trains = [file for file, split in zip(files, splits, strict=True) if split == "train"]
    planted = set(trains[3::9])
    other = {"red": "green", "green": "blue", "blue": "red"}
    labels = [other[file.parent.name] if file in planted else file.parent.name for file in files]
    rows = [
        f"{file.relative_to(images)},{label},{split}"
        for file, label, split in zip(files, labels, splits, strict=True)
    ]
    table = tmp_path / "cars.csv"
    table.write_text("\n".join(["id,label,split", *rows]))
    data = prepare(
        table, tmp_path / "data", images=images, folds=2, blend_size=0, test_size=0
    ).folder
    recipe = {**RECIPE, "epochs": 10, "device_batch_size": 4, "optimizer.lr": 3e-3}
    train_folds(data, recipe, 2, runs=tmp_path / "runs")
    found = tmp_path / "doubtful.csv"
    words = ["folds", "--study", "single", "--runs", str(tmp_path / "runs"), "--no-test"]
    done = CliRunner().invoke(app, [*words, "--doubtful", str(found)])
    assert done.exit_code == 0, done.output
    named = {line.split(",")[0] for line in found.read_text().splitlines()[1:]}
    assert f"doubtful training labels: {len(named)} of {len(trains)}" in done.output
    hits = named & {str(file.relative_to(images)) for file in planted}
    assert len(hits) > len(planted) / 2
    assert len(named) < len(trains) / 3
    clean = prepare(
        table, tmp_path / "clean", images=images, exclude=found, blend_size=0, test_size=0
    )
    assert len(clean.rows("train")) == len(trains) - len(named)
