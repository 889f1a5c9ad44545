"""Stacking: weights of each class, which many images earn and few don't."""

from __future__ import annotations

import numpy as np
import pytest

from carray.ensemble import build_ensemble
from carray.ensemble.stacking import fit_stack
from carray.inference.card import Card
from carray.inference.predictor import load_model
from carray.predictions.averaging import Stack, WeightedAverage
from carray.predictions.combination import Combination
from carray.predictions.logits import log_softmax
from carray.predictions.scores import fitted_temperature, log_loss
from carray.predictions.test_access import fingerprint
from tests.trained import Trained


def experts(images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two members, each of which knows half of the six classes: (2, images, 6), and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, images)
    knows = np.repeat([[1.0, 0.0], [0.0, 1.0]], 3, axis=1).reshape(2, 1, 6)
    noise = rng.normal(size=(2, images, 6))
    logits = 3.0 * np.eye(6)[labels] * knows + noise * (1.5 - knows)
    return np.stack([log_softmax(each) for each in logits]), labels


def losses(images: int) -> tuple[float, float]:
    """Return the log-loss of a stack on other images, and of the mean of logits."""
    fitted, judged = experts(images, 0), experts(4000, 1)
    _, stack = fit_stack(*fitted)
    halves = WeightedAverage((0, 1), (0.5, 0.5), "logit")
    stacked = WeightedAverage((0, 1), (0.5, 0.5), "stack", stack=stack)
    return tuple(log_loss(each.merged(list(judged[0])), judged[1]) for each in (stacked, halves))  # type: ignore[return-value]


def test_classes_that_a_member_knows_get_their_weight_from_it() -> None:
    stacked, mean = losses(8000)
    assert stacked < mean - 0.1
    few, mean = losses(40)
    assert few < mean + 0.05, "the ridge keeps few images from being fitted"


def test_images_that_are_all_right_do_not_ask_for_ever_more_confidence() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 60)
    logits = 4.0 * np.eye(6)[labels] + 0.5 * rng.normal(size=(2, 60, 6))
    _, stack = fit_stack(np.stack([log_softmax(each) for each in logits]), labels)
    assert 1 < np.sum(stack.scales, axis=0).mean() < 2
    assert 0.5 < fitted_temperature(log_softmax(logits[0]), labels) < 1


def test_the_slopes_lead_to_the_least_loss() -> None:
    log_p, labels = experts(8000, 2)
    share, stack = fit_stack(log_p, labels, ridge=1e9, member_ridge=1e9)
    scales = np.array(stack.scales)
    assert np.allclose(scales, scales[0, 0], atol=1e-4), "only the mean weight is free"
    assert share == pytest.approx([0.5, 0.5], abs=1e-4)
    around = [log_loss(log_softmax(log_p.sum(axis=0) * k), labels) for k in (0.99, 1, 1.01)]
    scaled = [
        log_loss(log_softmax(log_p.sum(axis=0) * np.float32(scales[0, 0] * k)), labels)
        for k in (0.95, 1, 1.05)
    ]
    assert scaled[1] == min(scaled) <= min(around)


def test_a_packaged_stack_predicts_what_was_judged(trained: Trained) -> None:
    made = build_ensemble(
        "single", runs=trained.runs, top=2, rule="stacking", name="stacked", track=False
    )
    assert made.rule == "stacking"
    assert made.package is not None
    card = Card.read(made.package / "card.json")
    assert card.space == "stack"
    assert card.combination.average.stack == made.combination.average.stack
    rows = trained.manifest.rows("blend")
    files = [str(trained.manifest.included["path"].iloc[row]) for row in rows[:6]]
    found = np.log(load_model(made.package).predict(files))
    log_ps = [
        log_softmax(trained.study.trial(int(member.trial[-4:])).logits("blend")[:6])
        for member in made.chosen
    ]
    assert np.allclose(found, made.combination.log_p(log_ps), atol=2e-2)


def test_a_stack_is_a_model_of_its_own_and_takes_another_class() -> None:
    first = Combination(WeightedAverage((0,), (1.0,), "stack", stack=Stack(((1, 3),), (0, 1))), "s")
    wider = first.widened(3)
    assert wider.average.stack == Stack(((1, 3, 2.0),), (0, 1, 0.0))
    assert fingerprint(["s/0000"], first) != fingerprint(["s/0000"], wider)
    plain = Combination(WeightedAverage((0,), (1.0,)), "s")
    assert plain.widened(3) == plain
