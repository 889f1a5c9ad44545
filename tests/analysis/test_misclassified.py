"""What a trained model gets wrong: counted, told, and drawn."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from carray.analysis.misclassified import find_misclassified
from carray.cli.app import app
from carray.errors import ConfigError, DataError
from carray.inference.dataset_predictions import check_classes
from carray.inference.held_predictions import HeldPredictions
from carray.predictions.logits import log_softmax
from carray.predictions.test_access import accesses
from carray.reports.misclassified import (
    RIGHT,
    TAKEN,
    TILE,
    WRONG,
    example_rows,
    misclassified_lines,
    write_misclassified,
)
from carray.runs_folder import RunsFolder
from tests.trained import Trained


def test_the_mistakes_are_those_of_the_trials_own_logits(trained: Trained, tmp_path: Path) -> None:
    found = write_misclassified("single/0000", trained.data, tmp_path, runs=trained.runs)
    manifest = trained.manifest
    rows = manifest.rows("test")
    labels, logits = manifest.labels[rows], trained.study.trial(0).logits("test")
    own = logits[np.arange(len(rows)), labels]
    best_other = np.where(np.eye(logits.shape[1], dtype=bool)[labels], -np.inf, logits).max(axis=1)
    surely, perhaps = ({int(row) for row in rows[w]} for w in (best_other > own, best_other >= own))
    wrong = {one.row for one in found.mistakes}
    assert surely <= wrong <= perhaps  # float16 makes two classes equal where float32 did not
    assert len(perhaps) < len(surely) + 3
    confidences = [one.confidence for one in found.mistakes]
    assert confidences == sorted(confidences, reverse=True)
    assert found.accuracy.value == pytest.approx(1 - len(wrong) / len(rows))
    assert sum(pair.count for pair in found.pairs) == len(wrong)
    assert all(one.true_rank > 1 and one.true != one.predicted for one in found.mistakes)


def test_mistakes_are_told_apart_where_names_have_parts(trained: Trained, tmp_path: Path) -> None:
    pattern = "{make} {model}"
    found = write_misclassified(
        "single/0000", trained.data, tmp_path, split="val", label_parts=pattern, runs=trained.runs
    )
    for one in found.mistakes:
        same_make = one.true.split()[0] == one.predicted.split()[0]
        assert one.wrong_in == ("model" if same_make else "make")
    assert sum(level.wrong for level in found.levels) == len(found.mistakes)
    assert any(line.startswith("make ") for line in misclassified_lines(found))
    assert (tmp_path / "errors.csv").read_text().splitlines()[0].endswith(",path,wrong_in")


def test_the_sheet_shows_every_mistake_beside_both_classes(
    trained: Trained, tmp_path: Path
) -> None:
    found = write_misclassified("single/0000", trained.data, tmp_path, shown=4, runs=trained.runs)
    assert found.sheet is not None
    with Image.open(found.sheet) as image:
        pixels = np.asarray(image)
    counts = {
        colour: int((pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=2).sum())
        for colour in (WRONG, RIGHT, TAKEN)
    }
    assert counts[WRONG] > 4 * 4 * TILE * 3  # four thick frames
    assert min(counts[RIGHT], counts[TAKEN]) > 4 * 2 * 4 * TILE  # two examples of each


def test_examples_are_training_images_of_the_class(trained: Trained) -> None:
    manifest = trained.manifest
    for name in manifest.classes:
        rows = example_rows(manifest, name, turn=5)
        assert len(rows) == 2
        assert {manifest.classes[manifest.labels[row]] for row in rows} == {name}
        assert set(rows) <= set(manifest.rows("train").tolist())


def test_the_table_holds_every_mistake(trained: Trained, tmp_path: Path) -> None:
    words = ["errors", "single/0000", str(trained.data), "--out", str(tmp_path / "e")]
    words += ["--runs", str(trained.runs), "--split", "val", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    with (tmp_path / "e" / "errors.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [one["image"] for one in told["mistakes"]]
    assert all(Path(row["path"]).exists() for row in rows)
    assert told["models_that_opened_test"] == 0


def test_a_trial_and_its_package_are_one_opening(trained: Trained, tmp_path: Path) -> None:
    write_misclassified("single/0001", trained.data, tmp_path, runs=trained.runs)
    runs, digest = RunsFolder(trained.runs), trained.manifest.hash
    before = len(accesses(runs, digest))
    write_misclassified("single-0001", trained.data, tmp_path, runs=trained.runs)
    assert len(accesses(runs, digest)) == before


def test_a_model_without_mistakes_leaves_a_table_and_no_sheet(trained: Trained) -> None:
    manifest = trained.manifest
    labels = manifest.labels[manifest.rows("val")]
    log_p = log_softmax(9 * np.eye(9)[labels])
    said = HeldPredictions("good", "val", manifest.classes, log_p, labels)
    found = find_misclassified(manifest, said)
    assert found.mistakes == found.pairs == ()
    assert "0 wrong" in misclassified_lines(found)[0]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (("a", "b", "c"), "knows 2 classes and data has 3"),
        (("b", "a"), "class 0 is 'a' in model and 'b' in data .* another order"),
        (("a", "c"), "class 1 is 'b' in model and 'c' in data .*other classes"),
    ],
)
def test_other_classes_are_refused_with_both_sides(found: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        check_classes(("a", "b"), found, "model", "data")


def test_wrong_data_and_counts_are_refused(
    trained: Trained, toy_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"knows 9 classes and .* has 12"):
        write_misclassified("single/0000", toy_data, tmp_path / "e", runs=trained.runs)
    with pytest.raises(ConfigError, match="--count 0 must be at least 1"):
        write_misclassified("single/0000", trained.data, tmp_path / "e", shown=0, runs=trained.runs)
    with pytest.raises(DataError, match="'tests' is no split"):
        write_misclassified("single/0000", trained.data, tmp_path, split="tests", runs=trained.runs)
    assert not (tmp_path / "e").exists()
