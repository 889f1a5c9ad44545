"""A calibrated package answers with a set and with "unknown"."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carray.analysis.calibrate import calibrate_model
from carray.data.manifest import Manifest
from carray.ensemble.build import build_ensemble
from carray.errors import ConfigError, DataError
from carray.inference.level_answers import temperature_of
from carray.inference.package import write_package
from carray.inference.predictor import load_model
from carray.inference.reliability import FILE, Reliability
from carray.predictions.averaging import WeightedAverage
from carray.predictions.combination import Combination
from carray.predictions.logits import energy_of
from carray.reports.calibration import reliability_lines
from carray.runs_folder import RunsFolder
from carray.serving.answers import image_answer
from carray.serving.limits import Limits
from carray.serving.served import Said, ServedModel
from tests.trained import Trained


def test_thresholds_are_written_and_served(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.runs, tmp_path / "runs")
    package = tmp_path / "runs" / "models" / "toy"
    write_package(package, trained.study.record(), [trained.study.trial(0)])
    assert Reliability.of_package(package) is None
    grey = tmp_path / "grey.png"
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(grey)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no image of --unknown can be read: broken\.png \("):
        calibrate_model("toy", unknown=[broken], runs=tmp_path / "runs")
    assert Reliability.of_package(package) is None
    found = calibrate_model(
        "toy", coverage=0.8, false_alarm_rate=0.2, unknown=[broken, grey], runs=tmp_path / "runs"
    )
    assert "1 image of --unknown is left out as unreadable: broken.png (" in found.notes[0]
    best = next(each for each in found.sets if each.method == found.chosen)
    assert best.found.low < 0.8 < best.found.high + 0.1
    assert found.unknown is not None
    assert found.unknown.unknown == 1
    text = "\n".join(reliability_lines(found))
    assert f"next: carray serve toy --runs {tmp_path / 'runs'}" in text
    kept = Reliability.of_package(package)
    assert kept is not None
    assert kept.method == found.chosen
    assert kept.energy_limit is not None
    runs = RunsFolder(tmp_path / "runs")
    served = ServedModel(runs, "toy", Limits(), "cpu", lambda images, seconds: None)
    version = served.current
    p = np.full(len(version.model.classes), 1 / len(version.model.classes), np.float32)
    said = image_answer("a", Said(p, 1e9), version, 2)
    assert (said.unknown, said.coverage) == (True, 0.8)
    assert said.set is not None
    assert said.classes[0].name in said.set
    mute = replace(version, reliability=kept.model_copy(update={"energy_limit": None}))
    assert image_answer("a", Said(p, 1e9), mute, 2).unknown is None
    served.close()


def test_a_trial_has_one_temperature_whoever_asks(trained: Trained, tmp_path: Path) -> None:
    """Fitted to blend and val by an ensemble, for levels of class names, and by calibration."""
    shutil.copytree(trained.runs, tmp_path / "runs")
    runs = RunsFolder(tmp_path / "runs")
    write_package(runs.models / "toy", trained.study.record(), [trained.study.trial(0)])
    options = {"rule": "soft vote", "logits_only": True, "open_test": False, "track": False}
    made = build_ensemble("single", top=1, runs=runs.path, **options)
    of_levels, said = temperature_of(runs, runs.models / "toy")
    images = sum(len(trained.study.labels(split)) for split in ("val", "blend"))
    assert said.endswith(f"of {images} images of blend and val")
    found = calibrate_model("toy", runs=runs.path)
    assert made.single_temperature == of_levels == found.temperature != 1.0
    assert made.blend.temperature == made.single_temperature
    assert load_model(runs.models / "toy").card.temperature == found.temperature


def test_what_an_older_version_calibrated_calls_nothing_unknown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = {"split": "blend", "images": 9, "coverage": 0.8, "method": "lac", "set_limit": 0.9}
    known |= {"false_alarm_rate": 0.05, "energy_limit": 1.5}
    (tmp_path / FILE).write_text(json.dumps(known))
    kept = Reliability.of_package(tmp_path)
    assert kept is not None
    assert (kept.energy_limit, kept.set_limit) == (None, 0.9)
    assert f"carray calibrate {tmp_path.name}" in caplog.text


def test_classes_of_many_images_have_thresholds_of_their_own(
    trained: Trained, tmp_path: Path
) -> None:
    write_package(tmp_path / "toy", trained.study.record(), [trained.study.trial(0)])
    found = calibrate_model(str(tmp_path / "toy"), coverage=0.2, data=trained.data, runs=tmp_path)
    kept = Reliability.of_package(tmp_path / "toy")
    assert kept is not None
    assert len(kept.class_limits) == 9
    assert found.notes[-1].startswith("classes with a threshold of their own: ")
    p = np.full((1, 9), 0.1, np.float32)
    odd = kept.model_copy(update={"method": "lac", "class_limits": (0.95, *(0.5,) * 7, None)})
    assert odd.sets(p)[0].tolist() == [True, *[False] * 7, True]


def test_an_ensemble_s_energy_is_that_of_its_mean_logits(trained: Trained, tmp_path: Path) -> None:
    trials = [trained.study.trial(number) for number in (0, 1)]
    average = Combination(WeightedAverage((0, 1), (0.75, 0.25)), "toy")
    write_package(tmp_path / "toy", trained.study.record(), trials, average)
    model = load_model(tmp_path / "toy", "cpu")
    squares = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), np.uint8)
    first, second = (member.logits(squares) for member in model.members)
    _, energies = model.answer(dict.fromkeys((one.geometry for one in model.members), squares))
    np.testing.assert_allclose(energies, energy_of(0.75 * first + 0.25 * second), rtol=1e-5)


def test_a_test_split_that_is_not_there_stays_closed(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = shutil.copytree(trained.runs, tmp_path / "runs")
    write_package(runs / "models" / "toy", trained.study.record(), [trained.study.trial(0)])
    rows = Manifest.rows
    none = np.empty(0, np.int64)
    monkeypatch.setattr(
        Manifest, "rows", lambda m, split: none if split == "test" else rows(m, split)
    )
    found = calibrate_model("toy", open_test=True, runs=runs)
    assert found.test is None
    assert "there is no test split to open" in found.notes


def test_shares_are_checked(trained: Trained) -> None:
    with pytest.raises(ConfigError, match=r"--coverage 1\.5 must be above 0 and below 1"):
        calibrate_model("single/0000", coverage=1.5, runs=trained.runs)
