"""Views of an image: what they show, what they are worth, and that harmful ones are refused."""

from __future__ import annotations

import contextlib
import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from carray.cli.app import app
from carray.data.pixels.augmentation import WHOLE, View, identity_params
from carray.data.pixels.augmentation_backends import apply_opencv, apply_torch
from carray.data.pixels.decode import read_square
from carray.data.pixels.store import store_side
from carray.ensemble import build_ensemble
from carray.ensemble.publish import publish
from carray.ensemble.tta import HURTS, KEPT, NO_GAIN, evaluate_tta_sets
from carray.ensemble.tta_views import TtaPredictor, select_tta
from carray.errors import ConfigError, RecordError
from carray.inference.card import Card
from carray.inference.predict import predict_to_csv
from carray.inference.predictor import load_model
from carray.predictions.averaging import WeightedAverage
from carray.predictions.logits import log_softmax
from carray.predictions.scores import fitted_temperature, make_folds
from carray.predictions.views import CHANGED, NONE, Tta, parse_tta_sets, parse_views
from carray.reports.ensemble import ensemble_lines
from carray.runs_folder import RunsFolder
from carray.typing import Advance
from tests.ensemble.studies import StudySpec, Trial, make_study
from tests.trained import Trained


def test_a_view_shows_its_part_of_the_image_and_mirrors_it() -> None:
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[:, :32, :32] = 200  # the upper left quarter
    quarter = View(0, 0, 0.5, 0.5)
    seen = apply_opencv(image, identity_params(1, 64, 32, quarter), 32)
    assert seen.min() > 150
    mirrored = apply_opencv(image, identity_params(1, 64, 64, View(flip=True)), 64)
    assert np.array_equal(mirrored[0], image[0, :, ::-1])
    assert np.array_equal(apply_opencv(image, identity_params(1, 64, 64), 64), image)


def test_views_are_turned_tilted_recoloured_and_blurred_alike_on_all_devices() -> None:
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[:, 8:24, 4:14] = 100
    plain = apply_opencv(image, identity_params(1, 32, 32), 32)[0].astype(int)
    for name in CHANGED:
        for view in parse_views(name)[1:]:
            params = identity_params(1, 32, 32, view)
            seen = apply_opencv(image, params, 32)[0]
            on_device = apply_torch(torch.from_numpy(image), params, 32)[0].permute(1, 2, 0)
            assert np.abs(seen - on_device.numpy()).max() < 2, view
            assert (seen != plain).any(), view

    def shown(view: View) -> np.ndarray:
        return apply_opencv(image, identity_params(1, 32, 32, view), 32)[0].astype(int)

    assert np.array_equal(shown(View(brightness=1.25))[10, 6], [125] * 3)
    assert np.array_equal(shown(View(contrast=0.8))[0, 0], [23] * 3)  # towards a mid grey of 115
    turned = shown(View(rotate=90.0))
    assert any(np.array_equal(turned, np.rot90(plain, k)) for k in (1, 3))
    left, right = (shown(View(tilt=tilt))[:, :16].sum() for tilt in (-0.3, 0.3))
    assert left > plain.sum() > right  # the box on the left is larger where that side is nearer


def test_sets_have_the_views_that_their_names_say() -> None:
    counts = {"none": 1, "flip": 2, "five_crop": 5, "ten_crop": 10}
    counts |= {"three_scales": 3, "five_scales": 5, "random:7": 7, "random:4:0.02": 4}
    assert {name: len(parse_views(name)) for name in counts} == counts
    assert len(set(parse_views("ten_crop"))) == 10
    assert parse_views("random:6") == parse_views("random:6")
    assert [len(parse_views(name)) for name in CHANGED] == [3, 5, 2, 3]
    areas = [(v.x2 - v.x1) * (v.y2 - v.y1) for v in parse_views("random:64:0.5")]
    assert 0.45 < min(areas) < max(areas) <= 1


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("five_crops", "did you mean 'five_crop'"),
        ("random:0", "must be random:N with N from 1 to 64"),
        ("random:4:1.5", r"in \(0, 1\]"),
        (",", "names no set of views"),
    ],
)
def test_unknown_views_are_refused(names: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_tta_sets(names)


def test_views_that_help_are_kept_and_those_that_hurt_are_told_with_their_number() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    signal = 2.0 * np.eye(5)[labels]
    noise = [rng.normal(size=(400, 5)) for _ in range(3)]
    plain_p = log_softmax(signal + 1.5 * noise[0])
    better = log_softmax(signal + 0.5 * (noise[0] + noise[1] + noise[2]))
    worse = log_softmax(0.1 * signal + 1.5 * noise[1])
    asked = [NONE, *(Tta(name, "logit", (WHOLE,)) for name in ("better", "worse", "same"))]
    rows = evaluate_tta_sets(
        asked, [plain_p, better, worse, plain_p], labels, make_folds(labels), 0
    )
    assert [row.verdict for row in rows] == [NO_GAIN, KEPT, HURTS, NO_GAIN]
    assert [row.chosen for row in rows] == [False, True, False, False]
    assert rows[1].gain.low > 0 > rows[2].gain.high
    assert rows[1].gain.value == pytest.approx(rows[0].log_loss - rows[1].log_loss, abs=1e-5)


def test_a_set_that_is_kept_has_the_temperature_that_suits_val_through_it_too(
    tmp_path: Path,
) -> None:
    folder = make_study(tmp_path, StudySpec([Trial(), Trial()]))
    own = {"runs": tmp_path, "logits_only": True, "open_test": False, "track": False}
    made = build_ensemble(rule="soft vote", top=2, **own)  # type: ignore[arg-type]
    rng, seen = np.random.default_rng(0), {}
    for split in ("blend", "val"):
        signal = np.eye(6)[folder.labels(split)]
        seen[split] = [log_softmax(k * signal + rng.normal(size=signal.shape)) for k in (2, 8)]
    viewer = SimpleNamespace(log_ps=lambda split, sets: seen[split][-len(sets) :])
    sets, labels = (Tta("flip", "logit", (WHOLE,)),), [folder.labels(s) for s in ("blend", "val")]
    kept = select_tta(made, cast(Any, viewer), sets, *labels, 0)
    assert kept.tta == sets[0]
    blend, val = ((seen[s][1], own) for s, own in zip(("blend", "val"), labels, strict=True))
    assert kept.blend.temperature == fitted_temperature(*blend, val)


@pytest.mark.parametrize("images", [60, 300])
def test_the_best_of_twelve_sets_without_effect_is_rarely_kept_and_one_with_effect_is(
    images: int,
) -> None:
    asked = [NONE, *(Tta(f"set {number}", "logit", (WHOLE,)) for number in range(12))]
    kept = {"none": 0, "set 3": 0}
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 5, images)
        seen = 2.0 * np.eye(5)[labels] + rng.normal(size=(images, 5))
        log_ps = [log_softmax(seen + 0.5 * rng.normal(size=(images, 5))) for _ in asked]
        kept["none"] += not evaluate_tta_sets(asked, log_ps, labels, make_folds(labels), seed)[
            0
        ].chosen
        log_ps[4] = log_softmax(seen + 0.4 * np.eye(5)[labels])
        kept["set 3"] += evaluate_tta_sets(asked, log_ps, labels, make_folds(labels), seed)[
            4
        ].chosen
    assert kept["none"] <= 4  # one set alone at 5 %, looked at twelve times: 10 or more
    assert kept["set 3"] >= 36


def test_random_crops_at_a_tiny_scale_are_refused_on_a_trained_model(trained: Trained) -> None:
    made = build_ensemble(
        "single",
        top=2,
        runs=trained.runs,
        name="tiny-crops",
        tta="random:6:0.02",
        keep_best=False,
        track=False,
    )
    assert made.tta is None
    assert {row.verdict for row in made.tta_rows[1:]} == {HURTS}
    assert max(row.gain.high for row in made.tta_rows[1:]) < 0
    assert Card.read(trained.runs / "models" / "tiny-crops" / "card.json").tta is None
    printed = "\n".join(ensemble_lines(made))
    assert "random:6:0.02 would hurt: log-loss" in " ".join(printed.split())
    assert max(map(len, printed.splitlines())) <= 100 + len(str(trained.runs))


def test_the_view_of_the_whole_image_says_what_the_trials_left(trained: Trained) -> None:
    made = build_ensemble("single", top=2, runs=trained.runs, name="viewed", track=False)
    viewer = TtaPredictor.of(made, trained.study.record())
    seen = viewer.log_ps("test", [NONE])[0]
    predictions = [
        log_softmax(trained.study.trial(int(made.members[n].trial[-4:])).logits("test"))
        for n in made.blend.members
    ]
    expected = sum(w * np.exp(p) for w, p in zip(made.blend.weights, predictions, strict=True))
    if made.blend.space == "probability":
        assert np.allclose(np.exp(seen), expected, atol=5e-3)


def test_views_are_looked_through_once_and_then_need_no_weights(
    trained: Trained, tmp_path: Path
) -> None:
    shutil.copytree(trained.runs / "studies", tmp_path / "studies")
    study = RunsFolder(tmp_path).study("single")
    trials = [study.trial(0), study.trial(1)]
    average, looked = WeightedAverage((0, 1), (0.5, 0.5)), []

    @contextlib.contextmanager
    def noted(what: str, total: int) -> Iterator[Advance]:
        looked.append((what, total))
        yield lambda count: None

    def seen(*names: str) -> list[np.ndarray]:
        viewer = TtaPredictor.of_trials(trials, average, study.record(), noted)
        return viewer.log_ps("blend", parse_tta_sets(names))

    first = seen("flip", "five_crop")
    for trial in trials:
        trial.weights_file.unlink()
    images = len(trained.manifest.rows("blend"))
    assert looked == [("views of blend", 2 * images * 6)], "the whole image was seen in training"
    assert all(np.array_equal(*pair) for pair in zip(first, seen("flip", "five_crop"), strict=True))
    assert len(looked) == 1
    with pytest.raises(RecordError, match="has no weights any more"):
        seen("three_scales")


def test_a_package_with_views_predicts_with_their_mean(trained: Trained, tmp_path: Path) -> None:
    made = build_ensemble("single", top=1, runs=trained.runs, name="plain", track=False)
    flip = Tta("flip", "logit", parse_views("flip"))
    study = trained.study.record()
    viewed = replace(made, tta=flip, name="flipped")
    publish(RunsFolder(trained.runs), study, viewed, track=False)
    model = load_model(trained.runs / "models" / "flipped")
    assert model.card.combination.views == flip
    files = [str(path) for path in trained.manifest.included["path"][:4]]
    whole, mirrored = (
        log_softmax(np.log(_predicted(trained, files, view))) for view in (WHOLE, View(flip=True))
    )
    expected = log_softmax((whole + mirrored) / 2 / np.float32(made.blend.temperature))
    assert np.allclose(np.log(model.predict(files)), expected, atol=2e-3)
    done = predict_to_csv("flipped", files, tmp_path / "out.csv", runs=trained.runs)
    assert "2 views" in done.notes[0]
    with (tmp_path / "out.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4


def _predicted(trained: Trained, files: list[str], view: View) -> np.ndarray:
    """What the packaged member says of one view, as probabilities at temperature 1."""
    member = load_model(trained.runs / "models" / "plain").members[0]
    size, fit = member.geometry
    squares = np.stack([read_square(Path(f).read_bytes(), store_side(size), fit) for f in files])
    return np.exp(log_softmax(member.logits(squares, view)))


def test_views_need_weights_and_images(trained: Trained) -> None:
    with pytest.raises(ConfigError, match="drop --logits-only"):
        build_ensemble("single", top=1, runs=trained.runs, tta="flip", logits_only=True)
    study = trained.study.record()
    made = build_ensemble("single", top=1, runs=trained.runs, name="plain", track=False)
    with pytest.raises(RecordError, match="bring the data back"):
        TtaPredictor.of(made, study.model_copy(update={"data": str(trained.data / "gone")}))
    with pytest.raises(RecordError, match="have changed since study"):
        TtaPredictor.of(made, study.model_copy(update={"manifest_hash": "f" * 64}))


def test_the_command_line_shows_every_set(trained: Trained) -> None:
    words = ["ensemble", "--study", "single", "--top", "1", "--tta", "auto", "--no-track"]
    words += ["--runs", str(trained.runs), "--no-test", "--name", "auto-views"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    for name in ("none", "flip, soft", "ten_crop, logit", "five_scales, soft", "random:8, logit"):
        assert name in done.output
