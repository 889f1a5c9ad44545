"""Rules combine as they say, and fitted ones find what is there to be found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carray.ensemble.selection import (
    LEAST_SHARE,
    BaggedGreedy,
    Greedy,
    best_prefix,
    fit_simplex,
)
from carray.predictions.averaging import average_log_p, pick_greedily
from carray.predictions.candidates import read_trials
from carray.predictions.logits import (
    SplitPredictions,
    are_finite,
    log_softmax,
    true_log_probability,
)
from tests.ensemble.studies import StudySpec, Trial, make_study


def random_logits(seed: int, images: int = 40, classes: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(images, classes)).astype(np.float32) * 3


def test_log_softmax_survives_float16_extremes() -> None:
    logits = np.array([[60000, -60000, 0], [3, 3, 3]], np.float16)
    log_p = log_softmax(logits)
    assert np.isfinite(log_p).all()
    assert log_p.dtype == np.float32
    assert np.allclose(log_p[1], np.log(1 / 3))


@given(st.integers(0, 1000))
def test_the_right_class_alone_agrees_with_the_whole(seed: int) -> None:
    logits = random_logits(seed).astype(np.float16)
    labels = np.random.default_rng(seed).integers(0, 5, 40)
    whole = log_softmax(logits)[np.arange(40), labels]
    assert np.allclose(true_log_probability(logits, labels), whole, atol=1e-6)


def test_many_images_are_worked_through_in_parts_and_checked_for_nan() -> None:
    logits = np.random.default_rng(0).normal(0, 30, (1000, 7)).astype(np.float16)
    labels = np.arange(1000) % 7
    whole = log_softmax(logits)[np.arange(1000), labels]
    assert np.allclose(true_log_probability(logits, labels), whole, atol=1e-5)
    logits[0] = [65504, -65504, 6e-8, -0.0, 0, 1, 2]
    assert are_finite(logits)
    for value in (np.nan, np.inf, -np.inf):
        logits[999, 6] = value
        assert not are_finite(logits)


def test_soft_vote_is_the_mean_of_probabilities() -> None:
    first, second = log_softmax(random_logits(0)), log_softmax(random_logits(1))
    voted = np.exp(average_log_p([first, second], (0.25, 0.75), "probability"))
    assert np.allclose(voted, 0.25 * np.exp(first) + 0.75 * np.exp(second), atol=1e-6)


def test_logit_mean_ignores_what_is_added_to_all_logits_of_an_image() -> None:
    first, second = random_logits(0), random_logits(1)
    shifted = first + np.arange(40, dtype=np.float32)[:, None]
    plain = average_log_p([log_softmax(first), log_softmax(second)], (0.5, 0.5), "logit")
    moved = average_log_p([log_softmax(shifted), log_softmax(second)], (0.5, 0.5), "logit")
    assert np.allclose(plain, moved, atol=1e-4)
    assert np.allclose(plain, log_softmax((first + second) / 2), atol=1e-5)


@given(st.integers(0, 200))
def test_fitted_weights_are_within_their_bound_of_the_best_on_the_simplex(seed: int) -> None:
    p_MN = np.random.default_rng(seed).uniform(0.01, 1, (3, 60))
    weights = fit_simplex(p_MN)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    corners = np.random.default_rng(seed + 1).dirichlet(np.ones(3), 2000)
    losses = -np.log(corners @ p_MN).mean(axis=1)
    assert -np.log(weights @ p_MN).mean() <= losses.min() + 2e-3


def test_a_member_that_only_hurts_gets_no_weight() -> None:
    good = np.random.default_rng(0).uniform(0.6, 0.9, 200)
    weights = fit_simplex(np.stack([good, good * 0.5]))
    assert weights.tolist() == [1.0, 0.0]


def test_greedy_takes_members_that_complete_each_other_and_leaves_the_rest() -> None:
    first = np.tile([0.9, 0.1], 50).astype(np.float32)
    p_MN = np.stack([first, first[::-1].copy(), np.full(100, 0.05, np.float32)])
    picks = pick_greedily(p_MN)
    assert set(picks) == {0, 1}
    assert picks.count(0) == picks.count(1)


def test_greedy_is_never_worse_than_the_best_single_member_where_it_was_fitted() -> None:
    p_MN = np.random.default_rng(3).uniform(0.01, 1, (8, 100)).astype(np.float32)
    picks = pick_greedily(p_MN)
    loss = -np.log(p_MN[picks].mean(axis=0)).mean()
    assert loss <= -np.log(p_MN).mean(axis=1).min() + 1e-6


def test_most_votes_win_and_the_mean_parts_ties() -> None:
    p_MNC = np.array(
        [[[0.6, 0.4, 0.0], [0.9, 0.1, 0.0]], [[0.55, 0.45, 0.0], [0.45, 0.55, 0.0]]], np.float32
    )
    sure = np.array([[[0.01, 0.99, 0.0]]] * 2, np.float32).transpose(1, 0, 2)
    with np.errstate(divide="ignore"):
        two, three = np.log(p_MNC), np.log(np.concatenate([p_MNC, sure]))
    voted = average_log_p(list(three), (1 / 3,) * 3, "vote")
    assert voted.argmax(axis=1).tolist() == [0, 1], "two of three; the mean would say 1 and 1"
    assert average_log_p(list(two), (0.5, 0.5), "vote")[1].argmax() == 0, "a tie: the surer one"
    assert np.exp(voted).sum(axis=1) == pytest.approx(1.0)


def test_a_greedy_choice_may_begin_with_some() -> None:
    p_MN = np.array([[0.9, 0.2], [0.2, 0.9], [0.5, 0.5]], np.float32)
    assert pick_greedily(p_MN, [2])[0] == 2
    assert best_prefix(p_MN) == 2


def test_a_bagged_choice_is_spread_over_more_members(tmp_path: Path) -> None:
    folder = make_study(tmp_path, StudySpec([Trial(skill=1.5) for _ in range(9)]))
    predictions = SplitPredictions(read_trials(folder), "blend", folder.labels("blend"))
    pool = tuple(range(9))
    one, bagged = (kind(pool).fit(predictions) for kind in (Greedy, BaggedGreedy))
    assert len(bagged.members) >= len(one.members)
    assert min(bagged.weights) >= LEAST_SHARE
    assert max(bagged.weights) < max(one.weights)
