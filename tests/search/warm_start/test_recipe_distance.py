"""How far apart recipes are."""

from __future__ import annotations

import numpy as np
import pytest

from carray.search.warm_start.recipe_distance import RecipeDistance, squared_distances

POINTS = [
    {"lr": 1e-4, "dropout": 0.0, "backbone": "a", "flip": True},
    {"lr": 1e-2, "dropout": 0.5, "backbone": "a", "flip": True},
    {"lr": 1e-3, "dropout": 0.0, "backbone": "b", "flip": False},
]


def apart() -> np.ndarray:
    places = RecipeDistance.fit(POINTS).vectors(POINTS)
    return np.asarray(np.sqrt(squared_distances(places, places)))


def test_wide_positive_ranges_are_compared_by_their_logarithm() -> None:
    near = RecipeDistance.fit([{"lr": 1e-4}, {"lr": 1e-2}])
    places = near.vectors([{"lr": 1e-4}, {"lr": 1e-3}, {"lr": 1e-2}])
    assert places[:, 0].tolist() == pytest.approx([0.0, 0.5, 1.0])


def test_each_axis_is_1_long_and_each_other_choice_is_1_away() -> None:
    distances = apart()
    assert distances[0, 1] == pytest.approx(np.sqrt(2))
    assert distances[0, 2] == pytest.approx(np.sqrt(0.25 + 1 + 1))
    assert distances.diagonal().tolist() == [0, 0, 0]


def test_what_never_varies_has_no_axis_and_an_unknown_value_is_in_the_middle() -> None:
    near = RecipeDistance.fit([{"lr": 1.0, "size": 224}, {"lr": 2.0, "size": 224}])
    assert near.vectors([{"lr": 1.5, "size": 64}, {}]).tolist() == [[0.5], [0.5]]


def test_values_far_outside_are_no_further_than_one_width() -> None:
    near = RecipeDistance.fit([{"x": 0.0}, {"x": 1.0}])
    assert near.vectors([{"x": 50.0}, {"x": -50.0}]).tolist() == [[2.0], [-1.0]]
