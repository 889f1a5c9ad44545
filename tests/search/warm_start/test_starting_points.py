"""Starting points from elsewhere: which recipes lie in a space, and how they are put there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from carray.errors import ConfigError, RecordError
from carray.runs_folder import RunsFolder
from carray.search.space.loading import load_space
from carray.search.space.space import BLOCK
from carray.search.space.yaml_reader import parse_space
from carray.search.warm_start.portfolio import Portfolio
from carray.search.warm_start.starting_points import place, start_points
from tests.search_benchmark.studies import SPACE, past_study

BLOCKS = """
version: 1
fixed: {epochs: 4, pretrained: false}
search:
  dropout: {uniform: [0.1, 0.5]}
  device_batch_size: {choice: [16, 32, 64]}
  augment.mixup: {choice: [0.0, 0.2]}
backbones:
  resnet:
    fixed: {backbone: resnet10t.c3_in1k}
    search:
      optimizer.name: {choice: [adamw, lamb]}
      optimizer.lr: {loguniform: [1e-4, 1e-2]}
  resnet_sgd:
    fixed: {backbone: resnet10t.c3_in1k, optimizer.name: sgd}
    search:
      optimizer.lr: {loguniform: [1e-3, 1.0]}
"""
RECIPE: dict[str, Any] = {
    "backbone": "resnet10t.c3_in1k",
    "optimizer.name": "adamw",
    "optimizer.lr": 1e-3,
    "dropout": 0.3,
    "device_batch_size": 32,
    "augment.mixup": 0,
    "image_size": 128,
}
SPACE_OF_BLOCKS = parse_space(BLOCKS, "blocks.yaml")


def placed(**changes: Any) -> dict[str, Any] | None:
    recipe = {**RECIPE, **{name.replace("__", "."): value for name, value in changes.items()}}
    return place(SPACE_OF_BLOCKS, recipe)[0]


def test_names_that_the_space_does_not_draw_are_dropped() -> None:
    point = placed()
    assert point is not None and "image_size" not in point and "backbone" not in point
    assert point[BLOCK] == "resnet" and point["optimizer.lr"] == 1e-3


def test_the_block_of_the_recipes_own_optimizer_is_taken() -> None:
    point = placed(optimizer__name="sgd", optimizer__lr=0.1)
    assert point is not None and point[BLOCK] == "resnet_sgd"


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "resnet10t.other_tag"])
def test_a_recipe_of_another_backbone_is_left_out(backbone: str) -> None:
    found, reason = place(SPACE_OF_BLOCKS, {**RECIPE, "backbone": backbone})
    assert found is None and reason == f"of another backbone ({backbone})"


def test_a_backbone_without_its_tag_is_the_same() -> None:
    assert placed(backbone="resnet10t") is not None


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("dropout", 0.07, 0.1),
        ("dropout", 0.53, 0.5),
        ("optimizer.lr", 1.3e-2, 1e-2),
        ("device_batch_size", 30, 32),
    ],
)
def test_values_just_outside_are_moved_to_the_end(name: str, given: float, expected: float) -> None:
    point = place(SPACE_OF_BLOCKS, {**RECIPE, name: given})[0]
    assert point is not None and point[name] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "given"),
    [("dropout", 0.0), ("optimizer.lr", 0.1), ("device_batch_size", 8), ("augment.mixup", 0.8)],
)
def test_a_recipe_that_lies_further_off_is_left_out_with_the_reason(
    name: str, given: float
) -> None:
    found, reason = place(SPACE_OF_BLOCKS, {**RECIPE, name: given})
    assert found is None and name in reason


def test_studies_and_portfolios_become_points_that_optuna_draws_first(tmp_path: Path) -> None:
    past_study(tmp_path, "a", ideal=-2.0)
    file = tmp_path / "p.yaml"
    recipe = {"optimizer.lr": 0.05, "dropout": 0.2, "backbone": "resnet18"}
    Portfolio.of([recipe], "val/log_loss", []).write(file)
    space = parse_space(SPACE, "space.yaml")
    points = start_points(space, ["a", str(file)], RunsFolder(tmp_path))
    assert len(points) >= 2
    assert points[-1] == {"optimizer.lr": 0.05, "dropout": 0.2}
    study = optuna.create_study()
    for point in points:
        study.enqueue_trial(point)
    assert [space.draw(study.ask()) for _ in points] == points


def test_points_of_blocks_come_by_optunas_names(tmp_path: Path) -> None:
    Portfolio.of([RECIPE, RECIPE], "val/log_loss", []).write(tmp_path / "p.yaml")
    points = start_points(SPACE_OF_BLOCKS, [str(tmp_path / "p.yaml")], RunsFolder(tmp_path))
    assert points == [
        {
            BLOCK: "resnet",
            "dropout": 0.3,
            "device_batch_size": 32,
            "augment.mixup": 0.0,
            "resnet.optimizer.name": "adamw",
            "resnet.optimizer.lr": 1e-3,
        }
    ]


def test_a_source_that_is_neither_study_nor_file_is_refused(tmp_path: Path) -> None:
    past_study(tmp_path, "cars-quick")
    with pytest.raises(RecordError, match=r"'cars-quik' is neither .* did you mean 'cars-quick'"):
        start_points(SPACE_OF_BLOCKS, ["cars-quik"], RunsFolder(tmp_path))


def test_sources_of_which_nothing_fits_are_refused_with_the_reasons(tmp_path: Path) -> None:
    past_study(tmp_path, "a")
    with pytest.raises(ConfigError, match=r"no starting point of a lies in blocks"):
        start_points(SPACE_OF_BLOCKS, ["a"], RunsFolder(tmp_path))


def test_the_shipped_recipes_lie_in_the_space_of_backbones(tmp_path: Path) -> None:
    points = start_points(load_space("backbones"), ["cars"], RunsFolder(tmp_path))
    blocks = [point[BLOCK] for point in points]
    assert {"convnext_tiny", "eva02_small", "resnet50_sgd"} <= set(blocks)


def test_the_reason_is_that_of_the_block_that_came_nearest() -> None:
    recipe = {**RECIPE, "optimizer.name": "rmsprop"}
    assert place(SPACE_OF_BLOCKS, recipe)[1] == "of another optimizer.name (rmsprop)"
