"""Every shipped space: checked, sampled, built whole without memory, and run for one epoch.

Every block is run with its own backbone at a small size; of more than `MOST_PARAMETERS` a small net
with the same recipe stands in, and the backbone is run on the meta device, which allocates nothing.
"""

from __future__ import annotations

import contextlib
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from carray import metrics
from carray.config import ScratchConfig, TrialConfig, build_config, flatten
from carray.data.preparation.prepare import prepare
from carray.data.synthetic import render_toycars
from carray.errors import ConfigError
from carray.models.backbones import build_backbone, shapes_alone
from carray.models.classifier import check_backbone
from carray.search.setting_notes import idle_settings
from carray.search.space.loading import load_space, spaces_folders
from carray.search.space.space import SearchSpace
from carray.training.epoch_order import EpochOrder
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner

FILES = sorted((Path(__file__).parents[3] / "search_spaces").glob("*.yaml"))
MOST_PARAMETERS = 3_000_000
SIDES = (32, 64, 112, 224)  # some transformers take few sizes
STAND_IN = "test_efficientnet"  # 0.4 million parameters, with everything that recipes vary
TINY: dict[str, Any] = {
    "pretrained": False,
    "device_batch_size": 8,
    "precision": "fp32",
    "scratch.filters": 8,
}


@pytest.fixture(params=FILES, ids=lambda file: str(file.stem))
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return load_space(request.param)


def drawn_configs(space: SearchSpace, **overrides: Any) -> list[TrialConfig]:
    """Return one trial of each backbone block, drawn at random."""
    found: dict[object, TrialConfig] = {}
    for params in space.sample(60, seed=1):
        if (block := params.get("backbone_block")) not in found:
            found[block] = space.resolve(params, overrides)
    assert set(found) == set(space.blocks or (None,))
    return list(found.values())


def test_the_shipped_spaces_are_found_by_name() -> None:
    assert FILES
    assert FILES[0].parent in spaces_folders()


def test_it_asks_a_question_and_says_how_many_trials_it_wants(space: SearchSpace) -> None:
    assert space.question.startswith("Question: ")
    assert "?" in space.question
    assert space.starts, "a shipped space knows where to start"


def test_none_of_its_settings_is_idle(space: SearchSpace) -> None:
    assert idle_settings(space) == []


def test_every_starting_point_is_a_trial_of_the_space(space: SearchSpace) -> None:
    draws = space.sample(60, seed=1)
    for point, named in zip(space.start_points(), space.starts, strict=True):
        block = point.get("backbone_block", draws[0].get("backbone_block"))
        drawn = next(draw for draw in draws if draw.get("backbone_block") == block)
        flat = flatten(space.resolve({**drawn, **point}))
        assert {name: flat[name] for name in named if name != "backbone_block"} == {
            name: value for name, value in named.items() if name != "backbone_block"
        }


def test_every_backbone_is_built_and_run_on_the_meta_device_at_its_own_size(
    space: SearchSpace,
) -> None:
    for config in drawn_configs(space, pretrained=False):
        for backbone in space.backbones() if len(space.blocks) == 0 else [config.backbone]:
            check_backbone(config.model_copy(update={"backbone": backbone}), 196)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of about 30 training images and 15 to validate on."""
    root = tmp_path_factory.mktemp("few")
    images = render_toycars(root / "images", seed=1, images_per_class=4)
    return prepare(images, root / "data", val_size=0.34, blend_size=0, test_size=0).folder


def test_one_epoch_of_every_block_runs_on_a_few_toy_images(
    space: SearchSpace, few: Path, tmp_path: Path
) -> None:
    runner = TrialRunner(SoloRanks(), torch.device("cpu"), num_threads=1)
    for number, config in enumerate(drawn_configs(space, **TINY)):
        folder = tmp_path / str(number)
        order = EpochOrder(
            trial=f"{space.name}/{number:04d}",
            folder=str(folder),
            data=str(few),
            config=small_enough(config),
            epoch=1,
        )
        row = runner.run_epoch(order).metrics
        assert all(np.isfinite(row[name]) for name in metrics.EPOCH_METRICS)
        assert 0 <= row[metrics.VAL_TOP1] <= 1
        shutil.rmtree(folder)  # a checkpoint may be 500 MB


@cache
def is_large(backbone: str, scratch: ScratchConfig) -> bool:
    with shapes_alone():
        built = build_backbone(TrialConfig(backbone=backbone, pretrained=False, scratch=scratch))
    return sum(parameter.numel() for parameter in built.parameters()) > MOST_PARAMETERS


def small_enough(config: TrialConfig) -> TrialConfig:
    """Return the same recipe at a small size, on the stand-in where its backbone is too large."""
    changes: dict[str, Any] = {"head.decoder_width": min(64, config.head.decoder_width)}
    if is_large(config.backbone, config.scratch):
        return build_config({**changes, "backbone": STAND_IN, "image_size": SIDES[0]}, config)
    for side in SIDES:
        small = build_config({**changes, "image_size": side}, config)
        with contextlib.suppress(ConfigError):
            check_backbone(small, 12)
            return small
    raise AssertionError(f"{config.backbone} takes none of {SIDES}")
