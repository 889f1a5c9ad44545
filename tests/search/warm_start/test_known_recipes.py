"""What a refit changes of its trial's recipe."""

from __future__ import annotations

import pytest

from carray.models.recipes import LONG
from carray.records import TrialRecord
from carray.search.space.yaml_reader import parse_space
from carray.search.warm_start.known_recipes import longer_config, refit_config

SPACE = """
version: 1
fixed: {epochs: 6}
search:
  optimizer.lr: {loguniform: [1e-4, 1e-1]}
  loss.label_smoothing: DRAWN
"""
OPEN = SPACE.replace("  loss.label_smoothing: DRAWN\n", "")


def smoothing_of(text: str, epochs: int, **params: object) -> float:
    """Return the label smoothing of a refit of a trial of six epochs."""
    space = parse_space(text, "space.yaml")
    drawn = {"optimizer.lr": 1e-3, **params}
    of = TrialRecord(study="s", number=0, params=drawn, config=space.resolve(drawn))
    config = refit_config(space, of, epochs, seed=7)
    assert (config.epochs, config.seed, config.optimizer.lr) == (epochs, 7, 1e-3)
    return config.loss.label_smoothing


@pytest.mark.parametrize(
    ("drawn", "own", "epochs", "wanted"),
    [
        ("{uniform: [0.0, 0.2]}", 0.0, LONG, 0.1),
        ("{uniform: [0.0, 0.2]}", 0.16, LONG, 0.16),
        ("{uniform: [0.0, 0.2]}", 0.0, LONG - 1, 0.0),
        ("{uniform: [0.0, 0.04]}", 0.0, LONG, 0.04),
        ("{choice: [0.0, 0.12]}", 0.0, LONG, 0.12),
        ("{choice: [0.0, 0.01, 0.9]}", 0.0, LONG, 0.01),
    ],
)
def test_a_long_refit_is_smoothed_as_far_as_its_space_lets_it(
    drawn: str, own: float, epochs: int, wanted: float
) -> None:
    text = SPACE.replace("DRAWN", drawn)
    assert smoothing_of(text, epochs, **{"loss.label_smoothing": own}) == wanted


def test_what_a_space_fixes_stays_and_what_it_leaves_open_is_the_recipes() -> None:
    assert smoothing_of(OPEN, LONG) == 0.1
    assert smoothing_of(OPEN.replace("6}", "6, loss.label_smoothing: 0.02}"), LONG) == 0.02
    assert smoothing_of(OPEN + "recipe: none\n", LONG) == 0.0
    assert smoothing_of(OPEN.replace("6}", "6, pretrained: false}"), LONG) == 0.0


def test_a_longer_refit_has_what_the_space_says_of_refits() -> None:
    space = parse_space(OPEN + "refit: {image_size: 96, optimizer.lr: 3e-4}\n", "space.yaml")
    of = TrialRecord(
        study="s", number=0, params=(drawn := {"optimizer.lr": 1e-3}), config=space.resolve(drawn)
    )
    sizes = [
        (config.image_size, config.optimizer.lr)
        for config in (
            refit_config(space, of, 12, seed=0),
            refit_config(space, of, 6, seed=1000),
            longer_config(space, of, 12, seed=0),
        )
    ]
    assert sizes == [(96, 3e-4), (224, 1e-3), (224, 1e-3)]


BLOCKS = """
backbones:
  test_resnet:
    fixed: {loss.label_smoothing: 0.0}
  test_vit: {}
"""


def test_a_block_has_a_say_of_its_own() -> None:
    for alias, wanted in (("test_resnet", 0.0), ("test_vit", 0.1)):
        assert smoothing_of(OPEN + BLOCKS, LONG, backbone_block=alias) == wanted


def test_a_trial_of_a_block_that_is_gone_is_trained_again_all_the_same() -> None:
    """Another machine may have no weights for it."""
    drawn = {"optimizer.lr": 1e-3, "backbone_block": "test_resnet"}
    begun = parse_space(OPEN + BLOCKS, "space.yaml")
    of = TrialRecord(study="s", number=0, params=drawn, config=begun.resolve(drawn))
    left = parse_space(OPEN + BLOCKS.replace("test_resnet", "test_efficientnet"), "space.yaml")
    config = refit_config(left, of, LONG, seed=7)
    assert (config.backbone, config.epochs) == ("test_resnet", LONG)
