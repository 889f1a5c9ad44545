"""One configuration on every fold: out-of-fold scores by hand, an ensemble, and clear refusals."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from carray.analysis.cross_validation import assemble_folds
from carray.cli.app import app
from carray.data.preparation.prepare import prepare
from carray.ensemble import build_ensemble
from carray.errors import ConfigError, DataError, RecordError
from carray.inference.predictor import load_model
from carray.predictions.candidates import find_candidates, read_trials
from carray.predictions.logits import log_softmax
from carray.predictions.test_access import accesses
from carray.records import TrialRecord
from carray.reports.misclassified import write_misclassified
from carray.reports.pictures.cross_validation_plot import folds_picture
from carray.reports.study import study_lines
from carray.runs_folder import RunsFolder
from carray.search.setup import check_folds
from carray.training.cross_validation import train_folds
from tests.trained import RECIPE, Trained


@pytest.fixture(scope="module")
def own(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    runs = tmp_path_factory.mktemp("folds") / "runs"
    shutil.copytree(trained.runs / "studies", runs / "studies")
    return replace(trained, runs=runs)


@pytest.fixture(scope="module")
def folded(own: Trained) -> list[TrialRecord]:
    return train_folds(own.data, {**RECIPE, "epochs": 5}, 2, runs=own.runs)


def test_every_training_image_is_judged_by_the_trial_that_has_not_seen_it(
    own: Trained, folded: list[TrialRecord]
) -> None:
    found = assemble_folds("single", runs=own.runs, open_test=False)
    manifest = own.manifest
    with np.load(found.logits_file, allow_pickle=False) as arrays:
        assert arrays["rows"].tolist() == manifest.rows("train").tolist()
        assert arrays["labels"].tolist() == manifest.labels[manifest.rows("train")].tolist()
        for fold, record in enumerate(folded):
            held = manifest.fold_rows(fold)[1]
            assert arrays["rows"][arrays["folds"] == fold].tolist() == held.tolist()
            left = own.study.trial(record.number).logits("val")
            assert np.array_equal(arrays["logits"][arrays["folds"] == fold], left)
        log_p, labels = log_softmax(arrays["logits"]), arrays["labels"]
    loss = -log_p[np.arange(len(labels)), labels].mean()
    assert found.out_of_fold.log_loss.value == pytest.approx(loss, abs=1e-5)
    assert found.out_of_fold.top1.value == pytest.approx((log_p.argmax(1) == labels).mean())
    assert found.out_of_fold.images == sum(row.images for row in found.folds)
    each = np.average([r.log_loss for r in found.folds], weights=[r.images for r in found.folds])
    assert found.out_of_fold.log_loss.value == pytest.approx(each, abs=2e-3)


def test_the_folds_ensemble_is_packaged_by_the_rule_that_blend_prefers(
    own: Trained, folded: list[TrialRecord]
) -> None:
    found = assemble_folds("single", runs=own.runs, name="by-folds")
    rows = {(row.split, row.what): row for row in found.ensembles}
    rules = ("soft vote", "logit mean")
    assert found.rule == min(rules, key=lambda what: rows["blend", what].log_loss.value)
    alone = rows["test", "one fold alone, on average"].log_loss.value
    assert rows["test", found.rule].log_loss.value < alone  # by convexity, for both rules
    assert found.models_that_opened_test == 1
    assert found.package is not None
    model = load_model(found.package)
    assert [member.trial for member in model.card.members] == [r.name for r in folded]
    assert model.card.rule == found.rule


def test_folds_are_not_members_beside_trials_that_val_judged(
    own: Trained, folded: list[TrialRecord]
) -> None:
    trials = read_trials(own.study)
    names = {c.record.name for c in find_candidates(own.study.record(), trials).trials}
    assert names.isdisjoint({record.name for record in folded})
    made = build_ensemble("single", top=2, runs=own.runs, logits_only=True, open_test=False)
    assert len(made.members) == 2
    printed = study_lines(own.study)
    assert "2 on folds" in printed[0]
    assert any("carray folds --study single" in line for line in printed)


def test_folds_are_put_together_where_each_has_a_complete_trial(
    own: Trained, folded: list[TrialRecord], tmp_path: Path
) -> None:
    shutil.copytree(own.runs / "studies", tmp_path / "studies")
    folder = RunsFolder.at(tmp_path).study("single")
    shutil.rmtree(folder.trial(folded[1].number).path)
    lines = study_lines(folder)
    assert "1 on folds" in lines[0]
    assert not any("carray folds" in line for line in lines)


def test_complete_folds_are_not_trained_again(own: Trained, folded: list[TrialRecord]) -> None:
    seen: list[TrialRecord] = []
    again = train_folds(own.data, {**RECIPE, "epochs": 5}, 2, runs=own.runs, on_epoch=seen.append)
    assert [record.number for record in again] == [record.number for record in folded]
    assert seen == []


def test_train_ends_with_a_line_a_fold_and_their_mean(
    own: Trained, folded: list[TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    sets = [f"--set={name}={value}" for name, value in {**RECIPE, "epochs": 5}.items()]
    words = ["train", str(own.data), *sets, "--folds", "2", "--runs", str(own.runs)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    for fold, record in enumerate(folded):
        assert any(line.split()[:2] == [record.name, str(fold)] for line in lines)
    mean = np.mean([record.best("val/log_loss") for record in folded])
    assert any(line.startswith("mean ") and f"{mean:.4f}" in line for line in lines)
    assert max(map(len, (line for line in lines if "--runs" not in line))) <= 80
    assert "next: carray folds --study single" in done.stdout


def test_the_folds_and_their_package_are_one_opening(
    own: Trained, folded: list[TrialRecord], tmp_path: Path
) -> None:
    assemble_folds("single", runs=own.runs, name="opened")
    runs, digest = RunsFolder(own.runs), own.manifest.hash
    before = len(accesses(runs, digest))
    write_misclassified("opened", own.data, tmp_path, runs=own.runs)
    assert len(accesses(runs, digest)) == before
    with pytest.raises(ConfigError, match="can't be a folder"):
        assemble_folds("single", runs=own.runs, name="../opened")


def test_the_command_line_draws_the_curves(
    own: Trained, folded: list[TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(
        app, ["folds", "--study", "single", "--runs", str(own.runs), "--no-test"]
    )
    assert done.exit_code == 0, done.output
    assert max(len(line) for line in done.output.splitlines() if "/" not in line) <= 80
    assert "carray predict single-folds IMAGES" in done.output
    assert "out of fold" in done.output
    picture = own.study.path / "folds" / f"{folded[0].number:04d}.png"
    with Image.open(picture) as image:
        assert image.size == (1440, 456)
    with pytest.raises(RecordError, match="is on no fold"):
        folds_picture(own.study, ["single/0000"])


def test_a_missing_fold_and_missing_data_are_told(
    trained: Trained, own: Trained, folded: list[TrialRecord], tmp_path: Path
) -> None:
    with pytest.raises(RecordError, match="it has no trial on a fold"):
        assemble_folds("single", runs=trained.runs)
    runs = tmp_path / "runs"
    shutil.copytree(own.runs / "studies", runs / "studies")
    shutil.rmtree(runs / "studies" / "single" / "trials" / f"{folded[1].number:04d}")
    with pytest.raises(RecordError, match="fold 1 of 2 lacks a complete trial"):
        assemble_folds("single", runs=runs)
    with pytest.raises(RecordError, match="has no trial 77"):
        assemble_folds("single", runs=runs, trial=77)


def test_folds_that_the_data_lack_are_refused(own: Trained) -> None:
    with pytest.raises(DataError, match=r"--folds 5 asks for 5 folds and .* has 2"):
        train_folds(own.data, RECIPE, 5, runs=own.runs)
    check_folds(2, own.manifest)
    with pytest.raises(DataError, match=r"--folds 3 asks for 3 folds and .* has 2"):
        check_folds(3, own.manifest)


def test_folds_that_a_class_is_too_small_for_are_one_error(own: Trained, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"too few distinct images for the splits and folds \(fold 0"
    ):
        prepare(own.images, tmp_path / "data", folds=40)
    assert not (tmp_path / "data").exists()
