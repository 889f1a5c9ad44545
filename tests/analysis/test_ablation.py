"""The ladder: one factor at a time, and seeds that say what is noise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from carray.analysis.ablation import Ablation, ablation_points, run_ablation
from carray.analysis.ablation_step import SeedRuns, compare_steps, seed_noise_bound
from carray.cli.app import app
from carray.config import TrialConfig
from carray.data.preparation.prepare import prepare
from carray.errors import ConfigError, DataError
from carray.records import TrialRecord
from carray.reports.ablation import ablation_lines, step_line
from carray.reports.table import within
from carray.search.space.loading import load_space
from carray.search.space.yaml_reader import parse_space
from tests.trained import Trained

LADDER = """
# Question: does a higher lr or more smoothing help?
version: 1
metric: val/log_loss
direction: minimize
fixed:
  backbone: test_resnet
  pretrained: false
  image_size: 32
  epochs: 1
  device_batch_size: 32
  augment.strength: 0.0
search:
  optimizer.lr: {choice: [3e-4, 6e-3]}
  loss.label_smoothing: {choice: [0.0, 0.9]}
start:
  - {optimizer.lr: 3e-4, loss.label_smoothing: 0.0}
  - optimizer.lr: 6e-3
  - loss.label_smoothing: 0.9
"""


def standing(level: float, seeds: int = 3, spread: float = 0.01) -> SeedRuns:
    rng = np.random.default_rng(int(level * 1000))
    own = level + rng.normal(size=(1, 200)) * 0.3
    losses = own + spread * np.arange(-(seeds // 2), seeds - seeds // 2)[:, None]
    record = TrialRecord(study="s", number=0, config=TrialConfig())
    return SeedRuns({}, (record,) * seeds, losses, np.ones_like(losses))


def test_noise_is_students_t_over_the_anchors_seeds() -> None:
    anchor = standing(1.0, seeds=3, spread=0.01)
    deviation = anchor.losses.mean(axis=1).std(ddof=1)
    assert deviation == pytest.approx(0.01)
    assert seed_noise_bound(anchor.losses, 3, 1) == pytest.approx(
        4.3027 * 0.01 * (4 / 3) ** 0.5, rel=1e-3
    )


@pytest.mark.parametrize(
    ("level", "verdict", "stays"),
    [(0.5, "better", True), (1.5, "worse", False), (0.98, "within noise", False)],
)
def test_a_step_counts_only_beyond_the_noise(level: float, verdict: str, stays: bool) -> None:
    anchor = standing(1.0)
    step = compare_steps("x", anchor, standing(level, seeds=1), anchor, "better")
    assert (step.verdict, step.stays) == (verdict, stays)
    assert compare_steps("x", anchor, standing(level, seeds=1), anchor, "all").stays


def test_noisy_seeds_hide_what_quiet_ones_show() -> None:
    quiet, noisy = standing(1.0, spread=0.01), standing(1.0, spread=0.5)
    tried = standing(0.7, seeds=1)
    assert compare_steps("x", quiet, tried, quiet, "better").verdict == "better"
    assert compare_steps("x", noisy, tried, noisy, "better").verdict == "within noise"


@pytest.fixture(scope="module")
def own(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return replace(trained, runs=tmp_path_factory.mktemp("ladder") / "runs")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("spaces") / "steps.yaml"
    file.write_text(LADDER, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def found(own: Trained, file: Path) -> Ablation:
    return run_ablation(own.data, file, runs=own.runs, tta="flip", folds=2)


def test_every_step_is_a_trial_and_changes_one_factor_of_what_stands(
    own: Trained, found: Ablation
) -> None:
    names = [step.name for step in found.steps]
    assert names[:3] == ["anchor", "optimizer.lr 0.006", "loss.label_smoothing 0.9"]
    assert names[3].startswith("views: flip")
    assert names[4].startswith("2 folds")
    assert names[5].startswith("2 folds x 2 views: flip")
    assert [len(step.trials) for step in found.steps] == [3, 1, 1, 1, 2, 2]
    study = own.runs / "studies" / "steps-data"
    anchor = [TrialRecord.read(study / f"trials/000{n}/record.json") for n in range(3)]
    assert [record.config.seed for record in anchor] == [0, 1, 2]
    means = [record.best("val/log_loss") for record in anchor]
    assert list(found.seed_log_losses) == pytest.approx(means, abs=2e-3)
    assert found.steps[0].log_loss.value == pytest.approx(np.mean(means), abs=2e-3)
    step = TrialRecord.read(study / "trials/0003/record.json")
    assert step.config.optimizer.lr == 6e-3
    assert step.config.loss == anchor[0].config.loss


def test_the_table_fits_and_says_what_noise_is(found: Ablation) -> None:
    lines = ablation_lines(found)
    assert max(map(len, lines)) <= 100
    assert all(step.verdict in ("better", "worse", "within noise") for step in found.steps[1:])
    json.dumps(found.as_dict())


def test_a_ladder_goes_on_where_it_stopped(own: Trained, file: Path, found: Ablation) -> None:
    seen: list[TrialRecord] = []
    again = run_ablation(own.data, file, runs=own.runs, on_epoch=seen.append)
    assert seen == []
    assert again.steps == found.steps[:3]


def test_what_is_no_ladder_is_refused(own: Trained, file: Path) -> None:
    with pytest.raises(ConfigError, match="quick is no ladder"):
        ablation_points(load_space("quick"))
    with pytest.raises(ConfigError, match=r"leaves loss\.label_smoothing open"):
        text = LADDER.replace("3e-4, loss.label_smoothing: 0.0}", "3e-4}")
        ablation_points(parse_space(text, "x"))
    with pytest.raises(ConfigError, match="--seeds 2 must be at least 3"):
        run_ablation(own.data, file, runs=own.runs, seeds=2)
    with pytest.raises(ConfigError, match="--keep 'best' must be one of better, all, none"):
        run_ablation(own.data, file, runs=own.runs, keep="best")  # type: ignore[arg-type]


def test_the_shipped_ladder_starts_from_its_anchor_and_changes_one_factor_a_step() -> None:
    points = ablation_points(load_space("logloss_ladder"))
    assert len(points) == 10
    extra = [set(point) - {"optimizer.lr"} for point in points[1:]]
    assert all(len(names) == 1 for names in extra)


def test_the_command_line_prints_each_step_as_it_ends(own: Trained, file: Path) -> None:
    words = ["ladder", str(own.data), "--space", str(file), "--runs", str(own.runs)]
    done = CliRunner().invoke(
        app, [*words, "--set", "loss.label_smoothing=0.1", "--max-epochs", "1"]
    )
    assert done.exit_code == 0, done.output
    assert "optimizer.lr 0.006" in done.output
    assert "label_smoothing" not in done.output  # fixed, so no step of it is left
    assert "1/1 * loss" in done.stderr, "hours pass without a line"
    assert "1/1 * loss" not in done.stdout
    assert "next: carray show " in done.stdout


def test_a_refused_ladder_prints_no_head(own: Trained, file: Path) -> None:
    words = ["ladder", str(own.data), "--space", str(file), "--runs", str(own.runs)]
    refused = CliRunner().invoke(app, [*words, "--folds", "7"])
    assert isinstance(refused.exception, DataError)
    assert refused.stdout == ""


def test_a_narrow_table_keeps_what_a_step_sets(found: Ablation) -> None:
    step = replace(found.steps[1], name="loss.label_smoothing 0.05")
    with within(80):
        line = step_line(step)
    assert len(line) <= 80
    assert " 0.05 " in line


def test_views_and_folds_need_a_blend_split(own: Trained, file: Path, tmp_path: Path) -> None:
    prepare(own.images, tmp_path / "data", blend_size=0.0, val_size=0.3)
    with pytest.raises(DataError, match="has no blend split"):
        run_ablation(tmp_path / "data", file, runs=tmp_path / "runs", tta="flip")
    with pytest.raises(DataError, match=r"--folds 7 asks for 7 folds and .* has 2"):
        run_ablation(own.data, file, runs=tmp_path / "runs", folds=7)
    assert not (tmp_path / "runs").exists()
