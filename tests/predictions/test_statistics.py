"""Intervals cover what they should; tests say how sure a difference is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from carray.predictions.logits import log_softmax
from carray.predictions.statistics import (
    bootstrap_means,
    compare,
    interval,
    mcnemar_exact,
    paired_gain,
    scores_of,
    simultaneous_gains,
    two_sided_p,
)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 9), (9, 3), (40, 41), (0, 12)])
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    count = first + second
    wanted = binomtest(first, count, 0.5).pvalue if count else 1.0
    assert mcnemar_exact(first, second) == pytest.approx(wanted)


def test_bootstrap_intervals_cover_the_true_mean_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(300):
        values = rng.exponential(1.0, (200, 1))
        found = interval(float(values.mean()), bootstrap_means(values, seed, 400)[:, 0])
        hits += found.low <= 1.0 <= found.high
    assert 0.90 < hits / 300 < 0.985


def noisy(labels: np.ndarray, skill: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(labels), 5)).astype(np.float32)
    logits[np.arange(len(labels)), labels] += np.float32(skill)
    return log_softmax(logits)


def test_a_clear_gain_is_called_better_and_the_reverse_worse() -> None:
    labels = np.random.default_rng(1).integers(0, 5, 500)
    weak, strong = noisy(labels, 1.0, 2), noisy(labels, 3.0, 3)
    better = compare(weak, strong, labels)
    assert better.verdict == "better"
    assert better.top1_p < 0.001
    assert better.log_loss_gain.low > 0
    assert compare(strong, weak, labels).verdict == "worse"


def test_the_same_predictions_are_called_not_better() -> None:
    labels = np.random.default_rng(1).integers(0, 5, 100)
    same = compare(noisy(labels, 1.0, 2), noisy(labels, 1.0, 2), labels)
    assert same.verdict == "not better"
    assert (same.top1_p, same.log_loss_p) == (1.0, 1.0)


def test_equal_skill_is_rarely_called_different() -> None:
    called = 0
    for seed in range(60):
        labels = np.random.default_rng(seed).integers(0, 5, 150)
        first, second = noisy(labels, 1.5, 1000 + seed), noisy(labels, 1.5, 2000 + seed)
        called += compare(first, second, labels, seed).verdict != "not better"
    assert called <= 12  # two tests at 5 % each: 6 expected at most


@pytest.mark.parametrize("images", [1, 2, 3, 5, 10, 20])
def test_few_images_hardly_ever_tell_equal_models_apart(images: int) -> None:
    called = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, 5, images)
        first, second = (noisy(labels, 1.5, number + 2 * seed) for number in (0, 1))
        called += compare(first, second, labels, seed).verdict != "not better"
    assert called <= 8  # percentiles alone: all of 100 for one image, 50 for two, 16 for ten


def test_intervals_of_few_images_all_right_are_not_points() -> None:
    labels = np.arange(5)
    sure = log_softmax(10.0 * np.eye(5, dtype=np.float32))
    found = compare(sure, sure, labels)
    assert (found.single.top1.value, found.single.top1.high) == (1.0, 1.0)
    assert found.single.top1.low == pytest.approx(0.5655, abs=1e-4)
    assert found.top1_gain.low < -0.3 < 0.3 < found.top1_gain.high
    assert scores_of(np.ones(5), np.zeros(5)).top1.high == pytest.approx(0.4345, abs=1e-4)


def test_the_log_loss_of_two_images_is_not_below_zero() -> None:
    found = scores_of(np.array([0.1, 3.0]), np.array([True, False]))
    assert found.log_loss.low == 0.0


def test_one_image_says_nothing() -> None:
    means = bootstrap_means(np.array([[0.7]]))[:, 0]
    found = interval(0.7, means)
    assert np.isnan([found.low, found.high]).all()
    assert not found.excludes_zero()
    assert two_sided_p(means) == 1.0


@pytest.mark.parametrize(("shares", "images"), [((0.1, 0.2, 0.6), 15), ((0.02, 0.02, 0.9), 40)])
def test_a_paired_gain_of_few_images_is_covered_about_95_times_in_100(
    shares: tuple[float, float, float], images: int
) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        kind = rng.choice(4, images, p=[*shares, 1 - sum(shares)])  # only first, second, both, none
        found = paired_gain((kind == 0) | (kind == 2), (kind == 1) | (kind == 2))
        covered += found.low <= shares[1] - shares[0] <= found.high
    assert covered / 300 > 0.92


def test_intervals_of_many_gains_hold_for_all_of_them_at_once() -> None:
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        gains = rng.normal(0.1, 1.0, (80, 12)) + rng.normal(size=(80, 1))
        covered += all(i.low <= 0.1 <= i.high for i, _ in simultaneous_gains(gains, seed))
    assert covered >= 89
    assert [p for _, p in simultaneous_gains(np.zeros((20, 2)))] == [1.0, 1.0]
    assert min(p for _, p in simultaneous_gains(np.ones((2, 3)))) > 0.05
