"""What further trials are expected to bring: nothing where all are alike, and less each time."""

from __future__ import annotations

import numpy as np
import pytest

from carray.predictions.ensemble_gain import FEWEST_TRIALS, cross_fitted_loss, expected_gain

IMAGES = 600


def trials(count: int, seed: int = 0, noise: float = 2.0) -> np.ndarray:
    """Return trials that are wrong in their own ways: (trials, images) probabilities."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(1.0, 1.0, IMAGES)
    return 1 / (1 + np.exp(-(hard + noise * rng.normal(size=(count, IMAGES))))).astype(np.float32)


def test_trials_that_are_all_alike_bring_nothing() -> None:
    same = np.repeat(trials(1), 12, axis=0)
    gain = expected_gain(same, 5)
    assert gain is not None and (gain.log_loss, gain.deviation) == (0.0, 0.0)


def test_it_foretells_what_further_trials_bring() -> None:
    foretold, real = [], []
    for seed in range(20):
        rows = trials(12, seed)
        gain = expected_gain(rows[:8], 4)
        assert gain is not None and gain.trials == 4
        foretold.append(gain.log_loss)
        real.append(cross_fitted_loss(rows[:8]) - cross_fitted_loss(rows))
    assert 0.3 < np.mean(foretold) / np.mean(real) < 3
    assert np.mean(foretold) > 0


def test_it_shrinks_as_trials_add_up() -> None:
    rows = trials(40)
    few, many = expected_gain(rows[:8], 5), expected_gain(rows, 5)
    assert few is not None and many is not None and few.log_loss > 2 * abs(many.log_loss)


def test_too_few_trials_say_nothing() -> None:
    assert expected_gain(trials(FEWEST_TRIALS - 1), 5) is None


def test_the_images_that_choose_are_not_those_that_judge() -> None:
    rows = np.full((2, 8), 0.5, np.float32)
    rows[0, ::2], rows[0, 1::2] = 0.9, 0.1  # good where it is chosen, bad where it is judged
    assert cross_fitted_loss(rows, is_single=True) == pytest.approx(-np.log([0.1, 0.5]).mean())
