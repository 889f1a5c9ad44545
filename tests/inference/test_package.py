"""A package holds all that a prediction needs, and loads without search code or pickles."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from carray.config import InputSpec, build_config
from carray.data.pixels.decode import read_square
from carray.data.pixels.store import store_side
from carray.data.preparation.prepare import prepare
from carray.ensemble import build_ensemble, default_package
from carray.errors import DataError, RecordError, WeightsError
from carray.inference.card import Card
from carray.inference.dataset_predictions import find_data
from carray.inference.inputs import find_package
from carray.inference.package import member_input, packages, safetensors_metadata, write_package
from carray.inference.predictor import load_model
from carray.inference.versions import version_note
from carray.predictions.logits import log_softmax
from carray.records import StudyFolder, StudyRecord, TrialFolder, TrialRecord
from carray.runs_folder import RunsFolder
from carray.training.epoch_order import EpochOrder
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner
from tests.inference.packages import draw_classes, draw_images, make_real_study


@pytest.mark.parametrize("rule", ["fitted weights", "logit mean"])
def test_an_ensemble_predicts_the_blend_of_its_members(tmp_path: Path, rule: str) -> None:
    make_real_study(tmp_path)
    made = build_ensemble(runs=tmp_path, rule=rule, track=False)
    images = draw_images(tmp_path / "images")
    assert made.package is not None
    model = load_model(made.package, "cpu")
    probabilities = made.predict(images)
    assert probabilities.shape == (5, 6)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    members = [
        model.members[place].logits(
            np.stack(
                [read_square(image.read_bytes(), store_side(size), "squash") for image in images]
            )
        )
        for place, size in enumerate(member.card.input.size for member in model.members)
    ]
    p = [np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) for logits in members]
    weights = np.array([entry.weight for entry in model.card.members])
    if model.card.space == "logit":
        mixed = np.exp(np.tensordot(weights, np.log(p), 1))
    else:
        mixed = np.tensordot(weights, np.stack(p), 1)
    mixed = mixed ** (1 / model.card.temperature)
    assert np.allclose(probabilities, mixed / mixed.sum(axis=1, keepdims=True), atol=1e-5)


def test_an_ensemble_reads_its_package_once(tmp_path: Path) -> None:
    make_real_study(tmp_path)
    made = build_ensemble(runs=tmp_path, track=False)
    assert made.package is not None
    images = draw_images(tmp_path / "images")
    first = made.predict(images)
    shutil.rmtree(made.package)
    assert np.array_equal(made.predict(images), first)
    copy = pickle.loads(pickle.dumps(made))
    assert copy == made
    with pytest.raises(RecordError, match="is missing"):  # the models aren't pickled
        copy.predict(images)
    module = weakref.ref(made._model.members[0].classifier)
    del made
    gc.collect()
    assert module() is None


def test_files_get_the_logits_that_training_left(tmp_path: Path) -> None:
    manifest = prepare(
        draw_classes(tmp_path / "images"),
        tmp_path / "data",
        val_size=0.3,
        blend_size=0,
        test_size=0.3,
    )
    config = build_config(
        {
            "backbone": "test_resnet",
            "pretrained": False,
            "image_size": 64,
            "fit": "pad",
            "epochs": 1,
            "device_batch_size": 8,
        }
    )
    trial = TrialFolder(tmp_path / "runs" / "studies" / "one" / "trials" / "0000")
    order = EpochOrder(
        trial="one/0000", folder=str(trial.path), data=str(manifest.folder), config=config, epoch=1
    )
    runner = TrialRunner(SoloRanks(), torch.device("cpu"), num_threads=1)
    runner.run_epoch(order)
    runner.finish(order)
    trial.write_record(TrialRecord(study="one", number=0, config=config))
    write_package(tmp_path / "package", StudyRecord(name="one", classes=manifest.classes), [trial])
    files = manifest.included["path"][manifest.rows("test")].tolist()
    found = load_model(tmp_path / "package", "cpu").predict(files)
    wanted = np.exp(log_softmax(trial.logits("test")))
    assert len(files) >= 6
    assert np.allclose(found, wanted, atol=2e-3)  # logits are kept in float16


def test_a_tracking_server_that_is_gone_costs_a_note_not_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_real_study(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    made = build_ensemble(runs=tmp_path)
    assert made.package is not None
    assert (made.package / "card.json").exists()
    assert any("the model is not in MLflow" in note for note in made.notes)


def test_the_card_says_what_it_is_worth_and_on_what(tmp_path: Path) -> None:
    make_real_study(tmp_path)
    made = build_ensemble(runs=tmp_path, track=False, name="final")
    card = json.loads((tmp_path / "models" / "final" / "card.json").read_text())
    assert card["kind"] == "ensemble"
    assert card["manifest_hash"] == "m" * 64
    assert card["results"]["test"]["ensemble"]["top1"]["value"] == pytest.approx(
        made.test.ensemble.top1.value if made.test else None
    )
    assert abs(sum(member["weight"] for member in card["members"]) - 1) < 1e-6
    assert not list((tmp_path / "models").glob(".final*"))


def test_a_model_is_loaded_by_name_and_takes_what_python_has(tmp_path: Path) -> None:
    make_real_study(tmp_path)
    build_ensemble(runs=tmp_path, track=False, name="final")
    model = load_model("final", "cpu", runs=tmp_path)
    images = draw_images(tmp_path / "images")
    p = model.predict(images)
    assert np.array_equal(model.predict(tmp_path / "images"), p)
    assert np.array_equal(model.predict(str(images[0])), p[:1])
    with Image.open(images[1]) as opened:
        assert np.allclose(model.predict(opened), p[1:2], atol=1e-5)
        array = np.asarray(opened.convert("RGB"))
    assert np.allclose(model.predict(array), p[1:2], atol=1e-5)
    assert np.allclose(model.predict([array, images[0]]), p[[1, 0]], atol=1e-5)
    for wrong in (array[..., 0], array.astype(float), 3):
        with pytest.raises(DataError, match=r"is no image: give paths"):
            model.predict(wrong)  # type: ignore[arg-type]


def test_a_trial_is_loaded_by_name_or_folder_as_its_package(tmp_path: Path) -> None:
    make_real_study(tmp_path)
    record = StudyFolder(next((tmp_path / "studies").iterdir())).records()[0]
    model = load_model(record.name, "cpu", runs=tmp_path)
    assert [member.trial for member in model.card.members] == [record.name]
    again = load_model(tmp_path / "studies" / record.study / "trials" / "0000", runs=tmp_path)
    assert again.card.name == model.card.name == f"{record.study}-0000"
    with pytest.raises(RecordError, match="has no trial 77"):
        load_model(f"{record.study}/0077", runs=tmp_path)


def test_a_measured_package_is_never_overwritten(tmp_path: Path) -> None:
    make_real_study(tmp_path)
    vote = {"runs": tmp_path, "track": False, "name": "final", "rule": "soft vote"}
    first = build_ensemble(**vote, keep_best=False)
    assert first.package == tmp_path / "models" / "final"
    card = (first.package / "card.json").read_text()
    again = build_ensemble(**vote, keep_best=False, open_test=False)
    assert again.package == first.package
    assert any("measured on test before" in note for note in again.notes)
    other = build_ensemble(**vote, top=2, keep_best=False, open_test=False)
    assert other.package == tmp_path / "models" / "final@2"
    assert (first.package / "card.json").read_text() == card
    runs = RunsFolder(tmp_path)
    assert find_package(runs, "final") == find_package(runs, "final@2") == other.package
    assert find_package(runs, "final@1") == first.package
    assert "version 2 of 2, the newest (also there: final@1)" in version_note(other.package)
    with pytest.raises(RecordError, match=r"there is no model 'final@3'"):
        find_package(runs, "final@3")


def test_a_package_holds_no_pickle(tmp_path: Path) -> None:
    make_real_study(tmp_path)
    made = build_ensemble(runs=tmp_path, track=False)
    assert made.package is not None
    suffixes = {file.suffix for file in made.package.rglob("*") if file.is_file()}
    assert suffixes == {".json", ".safetensors"}


def test_changed_or_missing_weights_are_refused(tmp_path: Path) -> None:
    make_real_study(tmp_path)
    made = build_ensemble(runs=tmp_path, track=False)
    assert made.package is not None
    weights = made.package / "members" / "0" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsError, match="isn't what the package was written with"):
        load_model(made.package)
    weights.unlink()
    with pytest.raises(RecordError, match="is incomplete"):
        load_model(made.package)
    with pytest.raises(RecordError, match="there is no model package here"):
        load_model(tmp_path)
    with pytest.raises(RecordError, match=rf"no model .*; did you mean '{made.package.name}'"):
        load_model(f"{made.package.name}x", runs=tmp_path)


def test_a_models_data_that_have_moved_name_the_option_that_says_where(tmp_path: Path) -> None:
    folder = make_real_study(tmp_path)
    made = build_ensemble(runs=tmp_path, track=False)
    assert made.package is not None
    moved = folder.record().model_copy(update={"data": str(tmp_path / "moved")})
    moved.write(folder.record_file)
    card = Card.read(made.package / "card.json")
    with pytest.raises(RecordError, match=r"was trained on .*moved, .* --data DIR"):
        find_data(RunsFolder(tmp_path), card, None)


def test_mean_and_std_in_the_weights_win_over_timm(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    file = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(1)}, file, {"mean": "[0.5, 0.5, 0.5]", "std": "[0.1, 0.2, 0.3]"})
    config = build_config({"backbone": "test_resnet", "pretrained": False, "image_size": 96})
    wanted = InputSpec(size=96, mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.3))
    assert member_input(config, file) == wanted
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(RecordError, match=f"is cut short: it should have {len(whole):,} bytes"):
        safetensors_metadata(file)
    file.write_bytes(b"short")
    with pytest.raises(RecordError, match="is no safetensors file"):
        safetensors_metadata(file)


@pytest.mark.parametrize("use", ["name", "folder", "newest", "load", "written anew", "other"])
def test_a_package_whose_writer_was_killed_between_its_renames_is_put_back(
    tmp_path: Path, use: str
) -> None:
    make_real_study(tmp_path)
    runs = RunsFolder(tmp_path)
    package = build_ensemble(runs=tmp_path, name="mine", top=1, track=False).package
    assert package is not None
    package.rename(runs.models / ".mine.previous")
    (runs.models / ".mine.77-0123abcd").mkdir()  # of the same writer
    if use in ("name", "folder"):
        assert find_package(runs, "mine" if use == "name" else str(package)) == package.resolve()
    elif use == "newest":
        assert default_package(tmp_path) == package
    elif use == "load":
        assert load_model(package, "cpu").card.name == "mine"
    else:
        name = "mine" if use == "written anew" else "other"
        build_ensemble(runs=tmp_path, name=name, top=1, track=False)
    assert (package / "card.json").exists()
    if use == "written anew":
        assert [each.name for each in runs.models.glob(".mine*")] == []


def test_hidden_folders_are_no_packages(tmp_path: Path) -> None:
    make_real_study(tmp_path)
    build_ensemble(runs=tmp_path, name="mine", top=1, track=False)
    models = RunsFolder(tmp_path).models
    shutil.copytree(models / "mine", models / ".mine.previous")
    assert packages(RunsFolder(tmp_path)) == [models / "mine"]
