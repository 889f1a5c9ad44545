"""One side against another: the images that both have, paired, and what else differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from carray.analysis.compare_pair import compare_sides
from carray.cli.app import app
from carray.config import build_config
from carray.data.manifest import Manifest
from carray.data.preparation.prepare import prepare
from carray.data.synthetic import render_toycars
from carray.errors import RecordError
from carray.metrics import LOG_LOSSES
from carray.predictions.test_access import accesses
from carray.records import HELD_SPLITS, StudyRecord, TrialRecord, TrialState
from carray.reports.analysis import paired_comparison_lines
from carray.runs_folder import RunsFolder
from tests.trained import RECIPE, Trained

NUM_EXCLUDED = 12


@pytest.fixture(scope="module")
def clean(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The same images less some of train and two of test; one has another order of classes."""
    root = tmp_path_factory.mktemp("clean")
    manifest = trained.manifest
    ids = manifest.included["image_id"].to_numpy()
    out = [*ids[manifest.rows("train")[:NUM_EXCLUDED]], *ids[manifest.rows("test")[:2]]]
    (root / "out.txt").write_text("\n".join(out), "utf-8")
    table = root / "cars.csv"
    rows = [
        f"{name},{manifest.classes[own]},{split}"
        for name, own, split in zip(ids, manifest.labels, manifest.included["split"], strict=True)
    ]
    table.write_text("\n".join(["id,label,split", *rows]), "utf-8")
    return prepare(table, root / "data", images=trained.images, exclude=root / "out.txt")


def study_of(
    runs: Path, name: str, manifest: Manifest, skills: list[float], **params: object
) -> None:
    """Write a study whose trials, one a seed, know the right class as well as `skills` say."""
    folder = RunsFolder(runs).study(name)
    labels = {split: manifest.labels[manifest.rows(split)] for split in HELD_SPLITS}
    folder.write_labels(labels)
    facts = {"manifest_hash": manifest.hash, "classes": manifest.classes}
    StudyRecord(name=name, kind="single", data=str(manifest.folder), **facts).write(
        folder.record_file
    )
    for seed, skill in enumerate(skills):
        trial = folder.trial(seed)
        logits = {split: said(manifest, split, seed, skill) for split in HELD_SPLITS}
        trial.write_logits(logits)
        trial.write_record(
            TrialRecord(
                study=name,
                number=seed,
                state=TrialState.COMPLETE,
                config=build_config({**params, "seed": seed}),
                epochs=(dict.fromkeys(LOG_LOSSES, 1.0) | {"val/top1": 0.5, "train/loss": 1.0},),
                manifest_hash=manifest.hash,
            )
        )


def said(manifest: Manifest, split: str, seed: int, skill: float) -> npt.NDArray[np.float64]:
    """Return logits whose noise is the image's own, so that two data sets' can be paired."""
    rows = manifest.rows(split)
    noise = [
        np.random.default_rng([seed, *name.encode()]).normal(size=len(manifest.classes))
        for name in manifest.included["image_id"].to_numpy()[rows]
    ]
    return skill * np.eye(len(manifest.classes))[manifest.labels[rows]] + np.array(noise)


def test_images_that_only_one_side_has_do_not_count(
    trained: Trained, clean: Manifest, tmp_path: Path
) -> None:
    study_of(tmp_path, "noisy", trained.manifest, [1.0, 1.0, 1.1])
    study_of(tmp_path, "clean", clean, [2.5, 2.4, 2.5])
    found = compare_sides("noisy", "clean", runs=tmp_path)
    images = len(trained.manifest.rows("test")) - 2
    assert (found.split, found.images) == ("test", images)
    assert (found.first.left_out, found.second.left_out) == (2, 0)
    assert (found.first.only_here, found.second.only_here) == (NUM_EXCLUDED, 0)
    assert found.differences == {}
    assert found.verdict == "better"
    for seed in range(3):
        folders = [RunsFolder(tmp_path).study(name).trial(seed) for name in ("noisy", "clean")]
        assert len(folders[0].logits("test")) == images + 2
        assert len(folders[1].logits("test")) == images
    right = [
        np.mean(
            [
                folder.logits("test").argmax(axis=1) == manifest.labels[manifest.rows("test")]
                for folder, _ in RunsFolder(tmp_path).study(name).trials()
            ],
            axis=0,
        )
        for name, manifest in (("noisy", trained.manifest), ("clean", clean))
    ]
    names = [m.included["image_id"].to_numpy()[m.rows("test")] for m in (trained.manifest, clean)]
    by_hand = right[1].mean() - right[0][np.isin(names[0], names[1])].mean()
    assert found.top1.value == pytest.approx(by_hand)
    assert found.top1.low < by_hand < found.top1.high
    lines = paired_comparison_lines(found)
    assert f"in A alone: {NUM_EXCLUDED} training images" in lines
    assert max(map(len, lines)) <= 100
    hashes = (trained.manifest.hash, clean.hash)
    assert [len(accesses(RunsFolder(tmp_path), own)) for own in hashes] == [3, 3]


def test_equal_sides_are_within_noise_and_seeds_widen_the_interval(
    trained: Trained, tmp_path: Path
) -> None:
    for name, skills in (("a", [1.5] * 3), ("b", [1.5] * 3), ("c", [0.8, 1.5, 2.2])):
        study_of(tmp_path, name, trained.manifest, skills, dropout=0.1 * ord(name[0]) % 0.9)
    same = compare_sides("a", "b", runs=tmp_path, open_test=False)
    assert (same.split, same.verdict, same.log_loss.value) == ("val", "within noise", 0.0)
    assert list(same.differences) == ["dropout"]
    wide = compare_sides("a", "c", runs=tmp_path, open_test=False)
    assert wide.log_loss.high - wide.log_loss.low > 1.5 * (same.log_loss.high - same.log_loss.low)
    assert not (tmp_path / "openings").exists()


def test_one_trial_a_side_is_told_and_tested_exactly(trained: Trained, tmp_path: Path) -> None:
    study_of(tmp_path, "a", trained.manifest, [0.5, 0.6])
    study_of(tmp_path, "b", trained.manifest, [5.0, 0.6])
    found = compare_sides("a/0000", "b/0000", runs=tmp_path)
    assert found.verdict == "better"
    only = [int(side.top1.value * found.images + 0.5) for side in (found.first, found.second)]
    assert found.top1_p <= 2 * 0.5 ** (only[1] - only[0])
    assert any(line.startswith("one trial each") for line in paired_comparison_lines(found))
    words = ["compare", "a/0000", "b/0000", "--runs", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, words)
    assert json.loads(done.output)["images"] == found.images


def test_what_cannot_be_compared_is_named(trained: Trained, tmp_path: Path) -> None:
    manifest = trained.manifest
    study_of(tmp_path, "a", manifest, [1.0])
    study_of(tmp_path, "other", manifest, [1.0])
    study = RunsFolder(tmp_path).study("other")
    record = study.trial(0).record()
    study.trial(1).write_logits({s: said(manifest, s, 1, 1.0) for s in HELD_SPLITS})
    study.trial(1).write_record(
        record.model_copy(update={"number": 1, "config": build_config({"epochs": 7})})
    )
    with pytest.raises(RecordError, match="have 2 configurations: name one of them"):
        compare_sides("a", "other", runs=tmp_path)
    with pytest.raises(RecordError, match="study 'a' has no trial 7"):
        compare_sides("a/0007", "other/0000", runs=tmp_path)
    fewer = prepare(
        trained.images, tmp_path / "twins", val_size=0.15, blend_size=0.2, test_size=0.2
    )
    study_of(tmp_path, "twins", fewer, [1.0])
    with pytest.raises(RecordError, match="a has 9 classes and twins 12, and"):
        compare_sides("a", "twins", runs=tmp_path)
    done = CliRunner().invoke(app, ["compare", "a", "--runs", str(tmp_path)])
    assert "two sides can be compared" in str(done.exception)


def test_a_classifier_trained_without_some_images_is_compared_with_one_that_had_them(
    trained: Trained, clean: Manifest, tmp_path: Path
) -> None:
    from carray.training.train import train

    shutil.copytree(trained.runs / "studies" / "single", tmp_path / "studies" / "single")
    train(clean.folder, {**RECIPE, "epochs": 2}, runs=tmp_path, study="clean")
    found = compare_sides("single/0001", "clean/0000", runs=tmp_path)
    assert set(found.differences) == {"epochs"}
    assert found.second.train_images == found.first.train_images - NUM_EXCLUDED


def test_images_of_one_name_and_other_content_are_no_pair(trained: Trained, tmp_path: Path) -> None:
    images = render_toycars(tmp_path / "images", seed=8, images_per_class=30)
    merge = {new: [] for new in trained.manifest.settings.merge.values()}
    for old, new in trained.manifest.settings.merge.items():
        merge[new].append(old)
    file = tmp_path / "merge.csv"
    file.write_text("".join(f"{new},{','.join(olds)}\n" for new, olds in merge.items()))
    other = prepare(
        images, tmp_path / "data", val_size=0.15, blend_size=0.2, test_size=0.2, merge=file
    )
    study_of(tmp_path, "a", trained.manifest, [1.0])
    study_of(tmp_path, "b", other, [1.0])
    with pytest.raises(RecordError, match="a and b have no test image in common"):
        compare_sides("a", "b", runs=tmp_path)
