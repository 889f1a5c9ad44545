"""A class added later: the head grows, the old classes stay, and both are measured."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from carray.cli.app import app
from carray.ensemble import build_ensemble
from carray.errors import ConfigError, DataError, RecordError
from carray.incremental.add_class import add_class, by_options
from carray.incremental.data import NOT_REPLAYED, extend_manifest
from carray.incremental.evaluate import AddedClass
from carray.inference.card import Card, MemberCard
from carray.inference.predictor import load_model
from carray.predictions.statistics import wilson
from carray.records import StudyFolder
from carray.reports.analysis import added_class_lines
from carray.training.features.classifiers import train_feature_classifier
from carray.training.train import train
from tests.trained import RECIPE, Trained


@pytest.fixture(scope="module")
def trucks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures of one colourful kind, one that can't be read, and a copy."""
    folder = tmp_path_factory.mktemp("trucks")
    rng = np.random.default_rng(5)
    for number in range(24):
        pixels = rng.integers(0, 90, (60, 80, 3), np.uint8)
        x, y = rng.integers(5, 30, 2)
        pixels[y : y + 25, x : x + 40] = (250, 30, 200 + number % 50)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    (folder / "broken.png").write_bytes(b"no image")
    shutil.copy(folder / "00.png", folder / "again.png")
    return folder


@pytest.fixture(scope="module")
def own(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    runs = tmp_path_factory.mktemp("added") / "runs"
    shutil.copytree(trained.runs / "studies", runs / "studies")
    build_ensemble("single", top=2, runs=runs, name="pair", rule="soft vote", track=False)
    return replace(trained, runs=runs)


@pytest.fixture(scope="module")
def added(own: Trained, trucks: Path) -> AddedClass:
    return add_class("pair", trucks, "BIG_TRUCKS", epochs=5, runs=own.runs)


def test_an_extended_data_set_keeps_held_splits_and_replays_the_old_classes(
    own: Trained, trucks: Path, tmp_path: Path
) -> None:
    before = own.manifest
    after = extend_manifest(before, trucks, "BIG_TRUCKS", tmp_path / "data", replay=6)
    assert after.classes == (*before.classes, "BIG_TRUCKS")
    for split in ("val", "blend", "test"):
        old = after.included.iloc[after.rows(split)]
        old = old[old["label"] != "BIG_TRUCKS"]
        wanted = before.included.iloc[before.rows(split)]
        assert old["image_id"].tolist() == wanted["image_id"].tolist()
    counts = Counter(after.labels[after.rows("train")].tolist())
    assert {counts[own] for own in range(9)} == {6}
    new = after.images[after.images["label"] == "BIG_TRUCKS"]
    assert (new["excluded"].str.split(":").str[0]).value_counts().to_dict() == {
        "": 24,
        "duplicate": 1,
        "unreadable": 1,
    }
    assert (after.images["excluded"] == NOT_REPLAYED).any()
    again = type(after).load(tmp_path / "data")
    assert again.hash == after.hash


def test_the_new_class_is_learned_and_both_sides_are_told(own: Trained, added: AddedClass) -> None:
    assert added.new.value > 0.5
    assert added.new_images == 6
    assert added.new.low < added.new.value
    assert (added.old_images, len(added.trials)) == (len(own.manifest.rows("test")), 2)
    assert added.change.value == pytest.approx(added.old_after.value - added.old_before.value)
    assert added.change.low <= added.change.value <= added.change.high
    assert added.old_after.value > 0.2  # chance is 0.11: they aren't forgotten
    lines = added_class_lines(added)
    assert max(len(line) for line in lines if "/" not in line) <= 100


def test_the_new_package_knows_the_old_classes_and_the_new_one(
    own: Trained, added: AddedClass, trucks: Path
) -> None:
    model = load_model(added.package)
    assert model.classes == (*own.manifest.classes, "BIG_TRUCKS")
    p = model.predict(sorted(trucks.glob("0*.png")))
    assert p.shape == (10, 10)
    assert (p.argmax(axis=1) == 9).mean() > 0.6
    assert [member.weight for member in model.card.members] == [0.5, 0.5]


def test_what_cannot_be_is_refused_and_leaves_nothing(
    own: Trained, trucks: Path, added: AddedClass, tmp_path: Path
) -> None:
    def call(name: str = "NEW", images: Path = trucks, **options: object) -> None:
        add_class("pair", images, name, runs=own.runs, **options)  # type: ignore[arg-type]

    known = own.manifest.classes[0]
    with pytest.raises(DataError, match=rf"the class '{known}' exists already"):
        call(known)
    with pytest.raises(ConfigError, match="there is a model or study 'pair-plus-BIG_TRUCKS'"):
        call("BIG_TRUCKS")
    (tmp_path / "few").mkdir()
    with pytest.raises(DataError, match="no image in"):
        call(images=tmp_path / "few")
    shutil.copy(trucks / "00.png", tmp_path / "few")
    shutil.copy(own.manifest.included["path"].iloc[0], tmp_path / "few")
    few = r"too few distinct images for the splits of the new class .*'NEW' \(1; 1 left out as "
    few += r"duplicate: in the data set already\): add images of it to .*few$"
    with pytest.raises(DataError, match=few):
        call(images=tmp_path / "few")
    with pytest.raises(DataError, match="old classes would be forgotten"):
        call(replay=0)
    with pytest.raises(RecordError, match="there is no model 'pear'"):
        add_class("pear", trucks, "NEW", runs=own.runs)
    assert not (own.runs / "studies" / "pair-plus-NEW").exists()
    assert not (own.runs / "models" / "pair-plus-NEW").exists()


def test_an_interrupt_leaves_nothing_and_is_told(
    own: Trained, trucks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("carray.incremental.add_class._log_epoch", interrupted)
    words = ["add-class", "pair", "--images", str(trucks), "--class", "NEW", "--epochs", "1"]
    done = CliRunner().invoke(app, [*words, "--runs", str(own.runs)])
    assert done.exit_code == 130
    assert done.stderr.splitlines()[-1].startswith("interrupted: no model was made")
    assert not (own.runs / "studies" / "pair-plus-NEW").exists()
    assert not (own.runs / "models" / "pair-plus-NEW").exists()


def test_every_kind_of_member_learns_it(
    own: Trained, trucks: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = tmp_path_factory.mktemp("kinds") / "runs"
    shutil.copytree(own.runs / "studies" / "single", runs / "studies" / "single")
    decoder = {"head.kind": "ml_decoder", "head.decoder_width": 32, "head.groups": 5}
    train(own.data, {**RECIPE, **decoder, "epochs": 4}, runs=runs)
    for kind in ("random_forest", "knn", "linear_probe"):
        train_feature_classifier(own.data, kind, "single/0000", runs=runs)
    build_ensemble("single", top=6, runs=runs, name="all", rule="soft vote", track=False)
    done = add_class("all", trucks, "BIG_TRUCKS", epochs=2, runs=runs)
    heads = [member.config.head for member in _cards(done.package)]
    kinds = ["knn", "linear", "linear", "linear", "ml_decoder", "random_forest"]
    assert sorted(head.kind for head in heads) == kinds
    assert next(head for head in heads if head.kind == "ml_decoder").groups == 5
    assert done.new.value > 0.5
    assert done.old_after.value > 0.2
    study = StudyFolder(runs / "studies" / done.model)
    for folder, record in study.trials():
        assert folder.logits("test").shape == (len(study.labels("test")), 10)
        if record.config.head.kind in ("knn", "random_forest"):
            right = folder.logits("test").argmax(axis=1) == study.labels("test")
            assert right[study.labels("test") == 9].mean() > 0.5, "it knows the new class"


def _cards(package: Path) -> list[MemberCard]:
    card = Card.read(package / "card.json")
    return [MemberCard.read(package / entry.folder / "config.json") for entry in card.members]


def test_wilsons_interval_is_honest_where_all_are_right() -> None:
    found = wilson(10, 10)
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.7225, abs=1e-3)
    half = wilson(50, 100)
    assert (half.low, half.high) == (
        pytest.approx(0.4038, abs=1e-3),
        pytest.approx(0.5962, abs=1e-3),
    )


def test_the_command_line_adds_one_to_a_single_trial(own: Trained, trucks: Path) -> None:
    words = ["add-class", "single/0001", "--images", str(trucks), "--class", "BIG TRUCKS"]
    words += ["--epochs", "1", "--replay", "3", "--runs", str(own.runs)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "the old classes, before" in done.output
    assert (own.runs / "models" / "single-0001-plus-BIG_TRUCKS" / "card.json").exists()


def test_what_training_says_names_the_options_that_the_command_has() -> None:
    nan = "loss is nan at step 3 of epoch 1 with lr 2; lower optimizer.lr, or set "
    assert by_options(f"{nan}optimizer.clip_grad_norm").endswith("with lr 2; lower --lr")
    collapsed = "optimizer.lr=1 is too high (why); try 0.1 or less, or a warm-up"
    assert by_options(collapsed) == "--lr=1 is too high (why); try 0.1 or less"


def test_what_is_made_of_a_version_has_a_name_that_a_folder_can_bear(
    own: Trained, trucks: Path, tmp_path: Path
) -> None:
    runs = shutil.copytree(own.runs, tmp_path / "runs")
    newest = shutil.copytree(runs / "models" / "pair", runs / "models" / "pair@2") / "card.json"
    newest.write_text(newest.read_text().replace('"pair"', '"pair@2"'))
    (runs / "models" / "pair_2-plus-Ü_neu").mkdir()
    with pytest.raises(ConfigError, match="pair_2-plus-Ü_neu"):
        add_class("pair", trucks, "Ü neu", runs=runs)
