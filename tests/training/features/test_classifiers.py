"""Classical heads are fitted to real features and leave what any trial leaves."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from carray.analysis.explain import explain
from carray.cli.app import app
from carray.config import CLASSICAL_HEADS, HeadConfig, TrialConfig, build_config
from carray.data.manifest import Manifest
from carray.ensemble import build_ensemble
from carray.errors import ConfigError, DataError, RecordError, WeightsError
from carray.inference.predictor import load_model
from carray.models.classifier import check_backbone
from carray.models.fitted_heads import ForestHead, NeighbourHead
from carray.records import TrialRecord, TrialState
from carray.training.features import fits
from carray.training.features.classifiers import train_feature_classifier
from carray.training.reproduce import reproduce
from tests.trained import Trained


@pytest.fixture(scope="module")
def own(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The trained study, copied: these tests add trials to it."""
    runs = tmp_path_factory.mktemp("classical") / "runs"
    shutil.copytree(trained.runs / "studies", runs / "studies")
    return replace(trained, runs=runs)


@pytest.fixture(scope="module")
def fitted(own: Trained) -> dict[str, TrialRecord]:
    return {
        kind: train_feature_classifier(own.data, kind, "single/0000", runs=own.runs)
        for kind in CLASSICAL_HEADS
    }


def known(classes: int = 4, width: int = 6) -> fits.FeatureDataset:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, width)) * 2

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, classes, count)
        return (centres[labels] + rng.normal(size=(count, width))).astype(np.float32), labels

    return fits.FeatureDataset(*draw(200), *draw(80), classes)


def test_the_forest_as_tensors_votes_as_scikit_learns() -> None:
    from sklearn.ensemble import RandomForestClassifier

    data = known()
    tensors, _ = fits.FITS["random_forest"](data, 3)
    head = ForestHead(4)
    head.fill(tensors)
    forest = RandomForestClassifier(300, random_state=3)
    forest.fit(data.train, data.train_labels)
    said = head(torch.from_numpy(data.val)).exp().numpy()
    assert np.allclose(said.sum(axis=1), 1, atol=1e-5)
    assert np.abs(said - forest.predict_proba(data.val)).max() < 0.01


def test_settings_are_scikit_learns_and_what_is_set_is_not_chosen() -> None:
    data, head = known(), HeadConfig(n_estimators=7, max_depth=2, C=3.0, n_neighbors=4)
    tensors, chosen = fits.FITS["random_forest"](data, 3, head)
    assert (len(tensors["vote"]), int(tensors["depth"]), chosen) == (7, 2, {"trees": 7})
    assert fits.FITS["linear_probe"](data, 3, head)[1] == {"strength": 3.0}
    assert fits.FITS["knn"](data, 3, head)[1]["neighbours"] == 4


def test_neighbours_vote_by_nearness() -> None:
    head = NeighbourHead(3, 2)
    bank = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [0, 1], [-1, 0]]), dim=1)
    head.fill(
        {
            "bank": bank.half(),
            "bank_labels": torch.tensor([0, 1, 2], dtype=torch.int32),
            "neighbours": torch.tensor(2, dtype=torch.int32),
            "sharpness": torch.tensor(5.0),
        }
    )
    p = head(torch.tensor([[3.0, 0.3]])).exp()[0]
    assert p.argmax() == 0
    assert p[0] > p[1] > p[2] > 0
    assert float(p.sum()) == pytest.approx(1)


@pytest.mark.parametrize("kind", CLASSICAL_HEADS)
def test_fits_learn_and_settings_are_chosen_on_val(kind: str) -> None:
    data = known()
    tensors, chosen = fits.FITS[kind](data, 0)
    assert chosen
    if kind == "linear_probe":
        weight, bias = (tensors[f"1.{name}"].numpy() for name in ("weight", "bias"))
        right = ((data.val @ weight.T + bias).argmax(1) == data.val_labels).mean()
        assert right > 0.85


def test_a_class_without_training_images_is_never_said() -> None:
    data = known()
    data = replace(data, train_labels=np.minimum(data.train_labels, 2), num_classes=4)
    for kind in CLASSICAL_HEADS:
        assert fits.FITS[kind](data, 0)[0]
    tensors, _ = fits.FITS["linear_probe"](data, 0)
    said = data.val @ tensors["1.weight"].numpy().T + tensors["1.bias"].numpy()
    assert 3 not in said.argmax(1)


@pytest.mark.parametrize("kind", CLASSICAL_HEADS)
def test_a_classical_trial_beats_chance_and_leaves_record_logits_and_weights(
    own: Trained, fitted: dict[str, TrialRecord], kind: str
) -> None:
    record = fitted[kind]
    assert (record.kind, record.state) == ("single", TrialState.COMPLETE)
    assert record.params["features_of"] == "single/0000"
    assert record.best("val/top1") > 0.25  # chance is 0.11
    trial = own.study.trial(record.number)
    assert TrialRecord.read(trial.record_file) == record
    for split in ("val", "blend", "test"):
        assert trial.logits(split).shape == (len(own.manifest.rows(split)), 9)
    assert trial.weights_file.exists()


def test_a_package_of_each_says_what_its_trial_left(
    own: Trained, fitted: dict[str, TrialRecord]
) -> None:
    from carray.inference.dataset_predictions import predict_rows
    from carray.inference.inputs import find_package
    from carray.predictions.logits import log_softmax
    from carray.runs_folder import RunsFolder

    manifest = own.manifest
    for record in fitted.values():
        model = load_model(find_package(RunsFolder(own.runs), record.name))
        said = predict_rows(model, manifest, manifest.rows("val"))
        left = log_softmax(own.study.trial(record.number).logits("val"))
        assert np.allclose(np.exp(said), np.exp(left), atol=0.02)


def test_they_join_an_ensemble_like_any_other(own: Trained, fitted: dict[str, TrialRecord]) -> None:
    made = build_ensemble("single", top=5, runs=own.runs, rule="soft vote", track=False)
    assert {member.trial for member in made.members} >= {r.name for r in fitted.values()}
    assert made.package is not None
    files = own.manifest.included["path"][:3].tolist()
    assert made.predict(files).shape == (3, 9)
    forest = fitted["random_forest"].name
    out = own.runs / "explained"
    done = explain(str(made.package), files[:1], out, runs=own.runs, track=False)
    left_out, *coarse = done.note.splitlines()
    assert (len(done.rows), left_out) == (1, f"not in the overlays: {forest}, a random forest")
    assert len(coarse) == 4 and all(
        "has 1x1 cells; the overlay is of an earlier" in n for n in coarse
    )
    with pytest.raises(ConfigError, match="have no gradient: explain the trial whose features"):
        explain(forest, files[:1], out, runs=own.runs, track=False)
    with pytest.raises(ConfigError, match="can't be replayed, since its random_forest was fitted"):
        reproduce(forest, runs=own.runs)


def test_what_cannot_be_is_refused(own: Trained, toy_manifest: Manifest, tmp_path: Path) -> None:
    def call(data: Path, kind: str = "knn", of: str = "single/0000") -> None:
        train_feature_classifier(data, kind, of, runs=own.runs)

    with pytest.raises(ConfigError, match="did you mean 'random_forest'"):
        call(own.data, "random_forrest")
    with pytest.raises(ConfigError, match=r"drop --set head\.hidden.*; knn has head\.n_neighbors"):
        settings = {"head.hidden": 9}
        train_feature_classifier(own.data, "knn", "single/0000", settings=settings, runs=own.runs)
    with pytest.raises(DataError, match="the features of single/0000 are of the data set"):
        call(toy_manifest.folder)
    with pytest.raises(RecordError, match="has no trial 99"):
        call(own.data, of="single/0099")
    runs = tmp_path / "runs"
    shutil.copytree(own.runs / "studies", runs / "studies")
    (runs / "studies" / "single" / "trials" / "0000" / "best.safetensors").unlink()
    with pytest.raises(WeightsError, match="no features: name a trial that has them"):
        train_feature_classifier(own.data, "knn", "single/0000", runs=runs)


def test_a_search_that_runs_keeps_others_out(own: Trained) -> None:
    before = len(list(own.study.trials()))
    with own.study.locked(), pytest.raises(RecordError, match="run by another process"):
        train_feature_classifier(own.data, "knn", "single/0001", runs=own.runs)
    assert len(list(own.study.trials())) == before


def test_no_optimizer_trains_a_classical_head() -> None:
    config: TrialConfig = build_config({"head.kind": "knn", "pretrained": False})
    with pytest.raises(ConfigError, match="--classifier knn --features-of"):
        check_backbone(config)


def test_the_command_line_fits_one(own: Trained) -> None:
    words = ["train", str(own.data), "--runs", str(own.runs), "--classifier", "knn"]
    done = CliRunner().invoke(app, [*words, "--features-of", "single/0001"])
    assert done.exit_code == 0, done.output
    assert "neighbours" in done.output
    alone = CliRunner().invoke(app, words)
    assert isinstance(alone.exception, ConfigError)
