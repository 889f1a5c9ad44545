"""Backbones are ranked by a probe, held against recorded studies, and order a search's starts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from carray.analysis.probe import Foretold, foretold, probe
from carray.cli.app import app
from carray.config import build_config
from carray.data.manifest import Manifest
from carray.errors import ConfigError, WeightsError
from carray.models.backbones import build_backbone
from carray.records import StudyRecord, TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.search.space.yaml_reader import parse_space
from carray.search.warm_start.probed import ProbeRecord, in_probe_order, probe_file, read_probe
from carray.training.features.fits import FITS, FeatureDataset

CANDIDATES = ("test_resnet", "test_convnext")
SPACE = """
version: 1
fixed: {epochs: 2, image_size: 32}
search: {dropout: {uniform: [0.0, 0.5]}}
backbones:
  one: {fixed: {backbone: test_convnext}}
  other: {fixed: {backbone: test_resnet.r160_in1k}}
  unknown: {fixed: {backbone: test_vit}}
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    for name in CANDIDATES:
        torch.manual_seed(0)
        state = build_backbone(build_config({"backbone": name})).state_dict()
        save_file(state, folder / f"{name}.safetensors")
    return folder


def test_backbones_are_ranked_recorded_and_order_the_next_searchs_starts(
    tmp_path: Path, toy_manifest: Manifest, weights: Path
) -> None:
    words = ["probe", str(toy_manifest.folder), "--size", "32", "--runs", str(tmp_path / "runs")]
    given = [*words, "--weights", str(weights), "--json", "--backbones", *CANDIDATES, "test_vit"]
    found = json.loads(CliRunner().invoke(app, given).stdout)
    assert {each["backbone"] for each in found["ranked"]} == set(CANDIDATES)
    losses = [each["scores"]["log_loss"]["value"] for each in found["ranked"]]
    assert losses == sorted(losses) and losses[0] < 3
    assert [name for name, _ in found["left_out"]] == ["test_vit"]
    assert found["foretold"] == {"tau": None, "pairs": 0, "data_sets": 0}
    known = read_probe(RunsFolder.at(tmp_path / "runs"), toy_manifest.hash)
    assert known and list(known.losses.values()) == losses

    space = parse_space(SPACE, "space.yaml")
    points = [{"backbone_block": alias, "dropout": 0.1} for alias in ("unknown", "one", "other")]
    ordered = [point["backbone_block"] for point in in_probe_order(space, points, known)]
    best = "other" if known.ranked[0].startswith("test_resnet") else "one"
    assert ordered == [best, "one" if best == "other" else "other", "unknown"]


def record_study(runs: RunsFolder, losses: dict[str, float], **changes: object) -> None:
    folder = runs.study("past")
    StudyRecord(name="past", manifest_hash="f" * 64).write(folder.record_file)
    for number, (name, loss) in enumerate(losses.items()):
        record = TrialRecord(
            study="past",
            number=number,
            state=TrialState.COMPLETE,
            params={},
            config=build_config({"backbone": name, "image_size": 32, **changes}),
            epochs=({"val/log_loss": loss + 1}, {"val/log_loss": loss}),
        )
        folder.trial(number).write_record(record)


def test_the_ranking_is_held_against_what_fine_tuning_reached(tmp_path: Path) -> None:
    runs = RunsFolder.at(tmp_path)
    names = ("resnet18.a1_in1k", "resnet34.a1_in1k", "resnet50.a1_in1k")
    record_study(runs, dict(zip(names, (1.0, 2.0, 1.5), strict=True)))
    file = probe_file(runs, "f" * 64)
    file.parent.mkdir()
    probed = dict(zip(names, (2.0, 3.0, 4.0), strict=True))
    ProbeRecord(manifest_hash="f" * 64, image_size=32, losses=probed).write(file)
    found = foretold(runs, 32)
    assert found.tau == pytest.approx(1 / 3) and (found.pairs, found.data_sets) == (3, 1)
    assert foretold(runs, 64) == Foretold(None, 0, 0)
    record_study(
        runs, dict(zip(names, (1.0, 2.0, 1.5), strict=True)), **{"finetune.policy": "head_only"}
    )
    assert foretold(runs, 32).pairs == 0


def test_what_cannot_be_probed_is_refused(tmp_path: Path, toy_data: Path) -> None:
    with pytest.raises(ConfigError, match="no backbone is named: give some, as in --backbones"):
        probe(toy_data, runs=tmp_path)
    with pytest.raises(ConfigError, match="unknown backbone 'resnet5O'"):
        probe(toy_data, ["resnet5O"], runs=tmp_path)
    with pytest.raises(WeightsError):
        probe(toy_data, ["test_vit"], image_size=32, runs=tmp_path, weights=tmp_path)


def test_a_feature_that_hardly_varies_decides_nothing() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features = (np.eye(3)[labels] * 3 + rng.normal(size=(90, 3))).astype(np.float32)
    dead = np.zeros((90, 1), np.float32)
    dead[0], dead[80:] = 1e-3, 1.0  # nearly nothing in training, much in a few others
    both = np.hstack([features, dead])
    val = labels[60:]

    def loss(features: np.ndarray) -> float:
        known = FeatureDataset(features[:60], labels[:60], features[60:], val, 3)
        fitted, _ = FITS["linear_probe"](known, 0)
        logits = torch.from_numpy(features[60:]) @ fitted["1.weight"].T + fitted["1.bias"]
        return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(val)))

    assert loss(both) == pytest.approx(loss(features), abs=0.05)
