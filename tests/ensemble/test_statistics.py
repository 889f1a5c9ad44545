"""Intervals cover what they should; tests say how sure a difference is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from carray.ensemble.logits import log_softmax
from carray.ensemble.statistics import bootstrap_means, compare, interval, mcnemar_exact


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
