"""The assignment's table: the same images, every model, and what only one of them knew."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from carray.analysis.compare_trials import compare_trials
from carray.cli.app import app
from carray.errors import RecordError
from carray.predictions.test_access import accesses
from carray.reports.analysis import model_comparison_lines
from carray.runs_folder import RunsFolder
from tests.ensemble.studies import StudySpec, Trial, make_study
from tests.trained import Trained

TRIALS = tuple(Trial(noise=noise) for noise in (0.5, 1.0, 2.0, 3.0))


def test_images_that_only_one_model_got_right_are_counted_by_hand(tmp_path: Path) -> None:
    folder = make_study(tmp_path, StudySpec(TRIALS))
    found = compare_trials("autumn", runs=tmp_path, every=True)
    labels = folder.labels("test")
    right = {
        number: folder.trial(number).logits("test").argmax(axis=1) == labels for number in range(4)
    }
    for row in found.rows:
        own = right[int(row.trial[-4:])]
        others = [mask for number, mask in right.items() if number != int(row.trial[-4:])]
        assert row.only_right == int((own & ~np.logical_or.reduce(others)).sum())
        assert row.only_wrong == int((~own & np.logical_and.reduce(others)).sum())
        assert row.top1.value == pytest.approx(own.mean())
        assert row.top1.low < row.top1.value < row.top1.high
    assert found.all_wrong == int((~np.logical_or.reduce(list(right.values()))).sum())


def test_by_default_the_best_of_each_backbone_is_shown(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(TRIALS))
    found = compare_trials(runs=tmp_path)
    models = [row.model for row in found.rows]
    assert len(set(models)) == len(models) == 3
    assert found.left_out == 1
    losses = [row.val_log_loss for row in found.rows]
    assert losses == sorted(losses)


def test_one_image_says_nothing_and_is_valid_json(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(TRIALS, images={"val": 300, "test": 1}))
    found = compare_trials(runs=tmp_path)
    told = json.dumps(found.as_dict(), allow_nan=False)
    assert {row["log_loss"]["low"] for row in json.loads(told)["rows"]} == {None}
    assert "nan " not in model_comparison_lines(found)[-2]


def test_val_is_told_to_have_chosen_the_epochs(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(TRIALS))
    told = [model_comparison_lines(compare_trials(runs=tmp_path, open_test=t))[-2] for t in (0, 1)]
    assert told[0].startswith("val chose each trial's epoch")
    assert "val chose" not in told[1]


def test_opening_test_is_recorded_for_each_model_and_val_opens_nothing(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(TRIALS))
    closed = compare_trials(runs=tmp_path, open_test=False)
    assert (closed.split, closed.images, closed.models_that_opened_test) == ("val", 300, 0)
    assert not (tmp_path / "openings").exists()
    opened = compare_trials(runs=tmp_path, trials=[1, 2])
    assert opened.models_that_opened_test == 2
    names = {opening.model for opening in accesses(RunsFolder(tmp_path), "m" * 64)}
    assert names == {"autumn/0001", "autumn/0002"}


def test_a_trial_that_was_refitted_can_be_named_beside_its_refit(tmp_path: Path) -> None:
    trials = [Trial(skill=3.0), Trial(skill=2.0), Trial(skill=4.0, refit_of=0)]
    make_study(tmp_path, StudySpec(trials))
    found = compare_trials(trials=[0, 2], runs=tmp_path, open_test=False)
    assert [row.trial for row in found.rows] == ["autumn/0000", "autumn/0002"]


def test_a_trial_that_cannot_be_compared_is_named(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(TRIALS[:2]))
    with pytest.raises(RecordError, match=r"trial 9 .* choose among 0, 1"):
        compare_trials(runs=tmp_path, trials=[0, 9])
    with pytest.raises(RecordError, match="has 1 model to compare"):
        compare_trials(runs=tmp_path, trials=[0])


def test_the_table_fits_and_json_is_one_object(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(TRIALS))
    lines = model_comparison_lines(compare_trials(runs=tmp_path, every=True))
    assert max(map(len, lines)) <= 100
    assert any("`carray ensemble` compares at fitted temperatures" in line for line in lines)
    done = CliRunner().invoke(
        app, ["compare", "--runs", str(tmp_path), "--trial=0", "--trial=2", "--json", "--no-test"]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert [row["trial"] for row in told["rows"]] == ["autumn/0000", "autumn/0002"]
    values = [row["val_value"] for row in told["rows"]]
    assert values == [row["val_log_loss"] for row in told["rows"]], told["metric"]
    assert [row["images_per_second"] for row in told["rows"]] == [None, None], "made-up trials"


def test_a_models_speed_is_that_of_its_usual_epoch(trained: Trained) -> None:
    found = compare_trials("single", runs=trained.runs, every=True, open_test=False)
    for row in found.rows:
        record = trained.study.trial(int(row.trial[-4:])).record()
        speeds = [epoch["images_per_second"] for epoch in record.epochs]
        assert row.images_per_second == pytest.approx(np.median(speeds))
