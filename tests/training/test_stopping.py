"""Collapse: told early where it is real, never of a slow starter; rows as they were measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from carray import metrics
from carray.config import TrialConfig, build_config
from carray.data.manifest import Manifest
from carray.records import TrialState
from carray.training.losses import chance_loss
from carray.training.stopping import Collapse, find_collapse, starved_by_plateau
from carray.training.train import train_trial
from tests.training.orders import SMALL

CHANCE = 2.485  # log-loss of 12 equal classes
Measured = list[tuple[float, float, float, float]]  # val skill, spread, logit std, training loss

HEALTHY: dict[str, Measured] = {
    "batch statistics lag behind": [
        (0.00, 0.00, 0.0008, 2.49),
        (-0.01, 0.13, 0.11, 2.46),
        (-1.53, 0.02, 2.4, 2.41),
        (-0.06, 0.17, 0.47, 2.36),
    ],
    "averaged weights lag behind": [
        (0.00, 0.00, 0.0004, 2.49),
        (-0.01, 0.00, 0.016, 2.47),
        (-0.02, 0.52, 0.3, 2.42),
    ],
    "mixed images from scratch": [
        (0.00, 0.00, 0.0007, 2.49),
        (0.00, 0.17, 0.044, 2.49),
        (-0.27, 0.43, 0.84, 2.50),
        (-0.03, 0.53, 0.32, 2.51),
        (0.00, 0.61, 0.19, 2.50),
    ],
    "no norm, tiny lr": [
        (0.00, 0.00, 0.031, 2.54),
        (0.00, 0.29, 0.032, 2.49),
        (0.00, 0.35, 0.031, 2.50),
        (0.00, 0.07, 0.032, 2.50),
        (0.00, 0.25, 0.036, 2.48),
    ],
    "six steps an epoch": [
        (0.00, 0.00, 6e-8, 2.58),
        (0.00, 0.00, 6.6e-6, 2.57),
        (0.00, 0.00, 0.00018, 2.60),
        (0.00, 0.00, 0.0023, 2.62),
        (0.00, 0.09, 0.018, 2.56),
        (0.00, 0.14, 0.13, 2.57),
    ],
    "starts over chance and falls": [
        (-0.03, 0.10, 0.12, 2.99),
        (-0.06, 0.15, 0.6, 2.88),
        (-0.09, 0.19, 0.69, 2.74),
        (-0.13, 0.13, 0.62, 2.65),
        (-0.08, 0.15, 0.58, 2.57),
        (-0.08, 0.15, 0.58, 2.52),
    ],
}
COLLAPSED: dict[str, Measured] = {
    "resnet at lr 1": [
        (-206.0, 0.26, 130.0, 11.79),
        (-0.02, 0.00, 0.021, 2.69),
        (-0.04, 0.00, 0.0, 2.66),
    ],
    "norm-free at lr 1": [
        (-4e12, 0.24, 2e13, 5e11),
        (-1e15, 0.52, 2e16, 3e14),
        (-3e15, 0.00, 3e12, 7e15),
    ],
    "dead, loss at chance": [
        (0.00, 0.00, 0.0, 2.50),
        (0.00, 0.00, 0.0, 2.49),
        (0.00, 0.00, 0.0, 2.49),
    ],
}


UNEVEN_HEALTHY: dict[str, tuple[float, Measured]] = {  # by the entropy of the labels
    "550 and 29 photographs, a transformer that recovers": (
        0.1967,
        [
            (-0.8794, 0.0, 0.0116, 0.5094),
            (-0.2965, 0.0, 0.0105, 0.3312),
            (-0.0075, 0.0, 0.0200, 0.2231),
            (-0.1234, 1.08, 0.6482, 0.1950),
        ],
    ),
    "570 and 30 images, lr 1e-2": (
        0.21,
        [
            (-0.275, 0.0, 0.11, 0.3193),
            (-0.0366, 0.0, 0.42, 0.2872),
            (0.0303, 0.0, 0.17, 0.241),
            (-0.0506, 0.0, 0.4, 0.1845),
            (0.0599, 0.0, 0.18, 0.2224),
        ],
    ),
    "570 and 30 images, lr 1e-4": (
        0.21,
        [
            (-1.7, 0.0, 0.034, 0.6827),
            (-1.0, 0.0, 0.045, 0.4689),
            (-0.622, 0.0, 0.064, 0.3592),
            (-0.438, 0.0, 0.076, 0.2922),
            (-0.338, 0.0, 0.085, 0.268),
            (-0.291, 0.0, 0.09, 0.2553),
            (-0.274, 0.0, 0.091, 0.2489),
        ],
    ),
    "320 and 80 images": (
        0.5,
        [
            (-0.486, 0.0, 0.29, 0.6124),
            (-0.0192, 0.0, 0.08, 0.5815),
            (-0.0174, 0.0, 0.075, 0.5548),
            (-0.0377, 0.0, 0.097, 0.5263),
            (-0.00149, 0.0, 0.072, 0.5209),
            (-0.0111, 0.0, 0.075, 0.5158),
        ],
    ),
    "five classes of 300 to 10 images": (
        1.116,
        [
            (-0.366, 0.56, 0.037, 1.599),
            (-0.25, 0.0, 0.055, 1.433),
            (-0.172, 0.0, 0.073, 1.334),
            (-0.128, 0.0, 0.085, 1.26),
            (-0.102, 0.0, 0.093, 1.231),
            (-0.0899, 0.0, 0.096, 1.221),
        ],
    ),
}
UNEVEN_COLLAPSED: dict[str, tuple[float, Measured]] = {
    "320 and 80 images, lr 1": (
        0.5,
        [
            (-4.78, 0.0, 6.8, 54.34),
            (-0.343, 0.49, 0.86, 2.991),
            (-0.362, 0.0, 0.14, 0.7737),
            (-0.0119, 0.0, 0.11, 0.5746),
            (-0.00202, 0.0, 0.038, 0.5203),
            (-0.0176, 0.0, 0.031, 0.523),
        ],
    ),
    "990 and 10 images, no norm, lr 0.1": (
        0.07,
        [
            (-0.378, 0.0, 0.01, 2503.0),
            (-0.209, 0.0, 9.4e-05, 0.1037),
            (-0.589, 0.0, 0.00023, 0.06984),
            (-0.122, 0.0, 6.6e-05, 0.07331),
        ],
    ),
    "twelve classes of 300 to 4 images, lr 1": (
        1.87,
        [
            (-0.0806, 0.0, 0.0, 61.85),
            (-0.0619, 0.0, 0.0, 2.069),
            (-0.0386, 0.0, 0.0, 1.953),
        ],
    ),
}


def rows_of(measured: Measured, chance: float = CHANCE) -> list[dict[str, float]]:
    return [
        {
            metrics.VAL_SKILL: skill,
            metrics.VAL_SPREAD: spread,
            metrics.VAL_LOGIT_STD: logit_std,
            metrics.VAL_LOG_LOSS: chance * (1 - skill),
            metrics.TRAIN_LOSS: loss,
            metrics.TRAIN_SKILL: 1 - loss / chance,
            metrics.LR: 1e-3,
        }
        for skill, spread, logit_std, loss in measured
    ]


def verdicts(measured: Measured, chance: float = CHANCE, **params: Any) -> list[Collapse | None]:
    """Return what is said after each epoch."""
    rows = rows_of(measured, chance)
    config = build_config({name.replace("__", "."): value for name, value in params.items()})
    return [find_collapse(rows[:count], config) for count in range(1, len(rows) + 1)]


@pytest.mark.parametrize("name", HEALTHY)
def test_a_slow_starter_is_left_alone(name: str) -> None:
    assert verdicts(HEALTHY[name]) == [None] * len(HEALTHY[name])


@pytest.mark.parametrize("name", COLLAPSED)
def test_a_collapse_is_told_by_the_third_evaluation_and_not_before(name: str) -> None:
    first, second, third = verdicts(COLLAPSED[name])
    assert (first, second) == (None, None)
    assert third is not None
    assert "of 12 classes" in third.evidence


@pytest.mark.parametrize("name", UNEVEN_HEALTHY)
def test_one_class_for_all_is_no_collapse_where_most_images_are_of_it(name: str) -> None:
    chance, measured = UNEVEN_HEALTHY[name]
    assert verdicts(measured, chance) == [None] * len(measured)


@pytest.mark.parametrize("name", UNEVEN_COLLAPSED)
def test_a_collapse_is_told_however_uneven_the_classes_are(name: str) -> None:
    chance, measured = UNEVEN_COLLAPSED[name]
    told = verdicts(measured, chance)[-1]
    assert told is not None
    assert "of 1 classes" not in told.evidence


def test_causes_are_told_apart() -> None:
    def cause(measured: Measured, **params: Any) -> str:
        told = verdicts(measured, **params)[-1]
        assert told is not None
        return told.cause

    flat: Measured = [(0.0, 0.1, 0.03, 2.49)] * 6
    assert "optimizer.lr=1 is too high" in cause(COLLAPSED["resnet at lr 1"], optimizer__lr=1.0)
    dead = COLLAPSED["dead, loss at chance"]
    assert "dead activations" in cause(dead)
    bare = {"backbone": "small_car_cnn", "scratch__batch_norm": False}
    assert cause(dead, **bare).endswith("or set scratch.batch_norm=true")
    assert "batch_norm" not in cause(dead, backbone="small_car_cnn")  # which has them
    assert "crops that lose the object" in cause(flat, augment__strength=0.9)
    assert "fit=crop" in cause(flat, fit="crop", augment__strength=0.2)
    assert "none stands out" in cause(flat, augment__strength=0.2)
    narrow = {"backbone": "small_car_cnn", "scratch__filters": 4, "augment__strength": 0.2}
    assert "a net too small for the task (scratch.filters=4)" in cause(flat, **narrow)


def test_a_plateau_that_cut_the_lr_first_is_named() -> None:
    rows = rows_of([(0.0, 0.1, 0.03, 2.49)] * 6)
    for row in rows[3:]:
        row[metrics.LR] = 5e-4
    told = find_collapse(rows, build_config({"schedule.name": "plateau"}))
    assert told is not None
    assert "plateau cut the lr to 0.0005 after epoch 3" in told.cause


def test_a_warm_up_is_waited_for_and_what_has_learned_never_collapses() -> None:
    collapsed = COLLAPSED["resnet at lr 1"]
    assert verdicts(collapsed, schedule__warmup_epochs=1)[-1] is None
    assert verdicts([(0.3, 0.9, 1.0, 1.5), *collapsed]) == [None] * 4


def train(folder: Path, data: Path, **params: Any) -> tuple[TrialState, str, int]:
    changes = {name.replace("__", "."): value for name, value in params.items()}
    config: TrialConfig = build_config({**SMALL, "epochs": 5, **changes})
    record = train_trial(config, data, folder, number=0)
    return record.state, record.reason, len(record.epochs)


def test_lr_1_ends_as_collapsed_with_the_cause_and_can_be_let_be(
    tmp_path: Path, toy_data: Path
) -> None:
    net = {"backbone": "small_car_cnn", "scratch__filters": 8, "optimizer__lr": 1.0}
    state, reason, epochs = train(tmp_path / "a", toy_data, **net)
    assert (state, epochs) == (TrialState.COLLAPSED, 3)
    assert "likely cause: optimizer.lr=1 is too high" in reason
    assert train(tmp_path / "b", toy_data, **net, stop_collapsed=False)[::2] == ("complete", 5)


def test_a_sound_lr_is_not_stopped(tmp_path: Path, toy_data: Path) -> None:
    assert train(tmp_path, toy_data, optimizer__lr=3e-3)[::2] == (TrialState.COMPLETE, 5)


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "focal"])
def test_chance_is_the_least_loss_of_one_answer_for_all(name: str, toy_manifest: Manifest) -> None:
    import torch

    from carray.training.losses import build_loss

    config = build_config({"loss.name": name}).loss
    labels = torch.tensor(toy_manifest.labels)
    counts = torch.bincount(labels)
    targets = torch.nn.functional.one_hot(labels).double()
    logits = torch.zeros(1, targets.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = build_loss(config, counts)(logits.expand_as(targets), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(step)  # type: ignore[no-untyped-call]
    assert chance_loss(config, counts) == pytest.approx(float(step().detach()), rel=2e-3)


STARVED = [2.9, 3.1, 2.9, 2.8, 2.75, 2.7, 2.72, 2.6]
CUT = [1e-3] * 4 + [1e-4] * 4


@pytest.mark.parametrize(
    ("losses", "rates", "schedule", "is_starved"),
    [
        (STARVED, CUT, "plateau", True),
        (STARVED, CUT, "step", False),
        (STARVED, [1e-3] * 8, "plateau", False),
        (STARVED, [1e-3] * 4 + [5e-4] * 4, "plateau", False),
        (STARVED[:7], CUT[:7], "plateau", False),  # three epochs say little
        ([2.9, 3.1, 2.9, 2.8, 2.4, 2.3, 2.31, 2.32], CUT, "plateau", False),
    ],
    ids=["starved", "no-plateau", "no-cut", "half-the-rate", "just-cut", "stands-still"],
)
def test_a_plateau_that_starves_a_net_that_learns_is_told(
    losses: list[float], rates: list[float], schedule: str, is_starved: bool
) -> None:
    config = build_config({"schedule.name": schedule})
    rows = [
        {metrics.VAL_LOG_LOSS: loss, metrics.LR: lr} for loss, lr in zip(losses, rates, strict=True)
    ]
    told = starved_by_plateau(rows, config)
    assert bool(told) == is_starved
    if is_starved:
        assert told.startswith("plateau cut the lr to 0.0001 after epoch 4 of 8, and the val log-l")
        assert "fell in 3 of 4 epochs since, to the last: raise schedule.plateau_pati" in told


def test_a_fitted_heads_rows_have_no_rate_that_could_be_cut() -> None:
    config = build_config({"schedule.name": "plateau"})
    assert starved_by_plateau([{metrics.VAL_LOG_LOSS: 2.0}], config) == ""
