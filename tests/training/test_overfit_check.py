"""Pre-flight: sound configurations overfit 32 images, unsound ones are told why they can't."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from carray.config import TrialConfig, build_config
from carray.data.manifest import Manifest
from carray.errors import ConfigError
from carray.search.preflight import preflight, typical_configs
from carray.search.space.yaml_reader import parse_space
from carray.training.dataset import open_data
from carray.training.overfit_check import OverfitResult, _few, _with_cure, sanity

NET = {
    "backbone": "small_car_cnn",
    "scratch.filters": 8,
    "pretrained": False,
    "image_size": 32,
    "optimizer.lr": 1e-2,
}


def verdict_on(data: Path, **changes: Any) -> OverfitResult:
    params = {name.replace("__", "."): value for name, value in changes.items()}
    seconds = params.pop("seconds", 60.0)
    return sanity(data, {**NET, **params}, seconds=seconds)


def test_a_sound_net_passes_with_its_regularisation_set_aside(toy_data: Path) -> None:
    verdict = verdict_on(toy_data, dropout=0.9, augment__strength=1.0, loss__label_smoothing=0.5)
    assert verdict.passed, verdict.reason
    assert verdict.images == 32
    assert verdict.top1 >= 0.95
    assert verdict.losses[-1] < 0.5 * verdict.chance
    assert verdict.seconds < 60


def test_an_lr_of_1_fails_and_a_tenth_or_hundredth_is_seen_to_pass(toy_data: Path) -> None:
    verdict = verdict_on(toy_data, optimizer__lr=1.0, scratch__batch_norm=False)
    assert not verdict.passed
    assert not verdict.out_of_time
    assert "optimizer.lr=1" in verdict.reason or "loss is" in verdict.reason


def test_a_step_too_small_to_learn_is_told(toy_data: Path) -> None:
    verdict = verdict_on(toy_data, optimizer__lr=3e-5)
    assert not verdict.passed
    assert "nothing is learned with optimizer.lr=3e-05" in verdict.reason
    assert "optimizer.lr=0.0003 passes" in verdict.reason


def test_a_net_is_too_small_where_a_wider_one_passes_and_no_lr_helps() -> None:
    failed = OverfitResult("small_car_cnn", False, "slow", False, 32, 80, 1.0, (2.0,), 2.0, 0.1)

    def overfit(config: TrialConfig, seconds: float) -> OverfitResult:
        return replace(failed, passed=config.scratch.filters >= 16)

    small = build_config({**NET, "scratch.filters": 4})
    told = _with_cure(failed, small, 30.0, overfit).reason
    assert "nor does it pass with 0.001 and 0.0001; the net is too small for the task: " in told
    assert told.endswith("scratch.filters=16 passes where 4 doesn't")
    other = build_config({"backbone": "resnet18"})
    assert "too small" not in _with_cure(failed, other, 30.0, overfit).reason


def test_no_time_proves_nothing(toy_data: Path) -> None:
    verdict = verdict_on(toy_data, seconds=0.001)
    assert (verdict.passed, verdict.out_of_time, verdict.passes) == (False, True, 1)
    assert "proves nothing" in verdict.reason


def test_the_images_are_few_of_a_class_and_always_the_same(
    toy_data: Path, toy_manifest: Manifest
) -> None:
    data = open_data(str(toy_data), build_config(NET))
    rows = _few(data, 32).train
    labels, counts = zip(*_counts(toy_manifest, rows), strict=True)
    assert (len(labels), set(counts)) == (8, {4})
    assert (rows == _few(data, 32).train).all()
    assert len(_few(data, 10**6).train) == len(data.train)


def _counts(manifest: Manifest, rows: Any) -> list[tuple[int, int]]:
    found = [int(label) for label in manifest.labels[rows]]
    return [(label, found.count(label)) for label in sorted(set(found))]


def test_what_cannot_be_tried_is_refused(toy_data: Path) -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        sanity(toy_data, NET, images=1)
    with pytest.raises(ConfigError, match="unknown backbone"):
        verdict_on(toy_data, backbone="small_cra_cnn")


SPACE = """
version: 1
fixed: {image_size: 32, pretrained: false, epochs: 2, scratch.filters: 8}
search:
  optimizer.weight_decay: {uniform: [0.0, 0.2]}
backbones:
  good:
    fixed: {backbone: small_car_cnn}
    search: {optimizer.lr: {loguniform: [1e-4, 1.0]}}
  bad:
    fixed: {backbone: small_car_cnn, scratch.batch_norm: false}
    search: {optimizer.lr: {uniform: [0.5, 8.0]}}
start:
  - {backbone_block: bad, optimizer.lr: 1.0}
"""


def test_a_typical_trial_is_the_start_point_or_the_middle() -> None:
    good, bad = typical_configs(parse_space(SPACE, "s"))
    assert good.optimizer.lr == pytest.approx(1e-2)
    assert good.optimizer.weight_decay == pytest.approx(0.1)
    assert bad.optimizer.lr == 1.0


def test_preflight_refuses_a_space_with_a_backbone_that_learns_nothing(toy_data: Path) -> None:
    said: list[str] = []
    with pytest.raises(ConfigError, match="the preflight failed for 1 of 2 backbones"):
        preflight(parse_space(SPACE, "s"), toy_data, said.append)
    assert [line.split(",")[0].split(": ")[1] for line in said] == ["pass", "FAIL"]


def test_the_command_prints_the_verdict_and_its_exit_code_says_it(toy_data: Path) -> None:
    from carray.cli.app import app

    sets = [part for name, value in NET.items() for part in ("--set", f"{name}={value}")]
    sets = [part.replace("False", "false") for part in sets]
    passed = CliRunner().invoke(app, ["sanity", str(toy_data), *sets, "--json"])
    assert passed.exit_code == 0, passed.output
    assert json.loads(passed.stdout)["passed"] is True
    failed = CliRunner().invoke(app, ["sanity", str(toy_data), *sets, "--seconds", "0.001"])
    assert failed.exit_code == 1
    assert failed.stdout.startswith("FAIL: small_car_cnn")
