"""What every rule keeps: its weights are a point of the simplex over members that it was given."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from carray.ensemble.selection import (
    BaggedGreedy,
    FittedWeights,
    Greedy,
    HardVote,
    LogitMean,
    Rule,
    SoftVote,
)
from carray.ensemble.stacking import Stacking
from carray.predictions.averaging import WeightedAverage
from carray.predictions.candidates import read_trials
from carray.predictions.logits import SplitPredictions
from tests.ensemble.studies import StudySpec, Trial, make_study

RULES: list[Callable[[tuple[int, ...]], Rule]] = [
    *(SoftVote, LogitMean, HardVote, FittedWeights, Stacking, Greedy, BaggedGreedy)
]
SKILLS = (2.0, 1.6, 1.2, 0.4)

pytestmark = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)


@pytest.fixture(scope="module")
def predictions(tmp_path_factory: pytest.TempPathFactory) -> SplitPredictions:
    """Four trials of falling skill, each with errors of its own, on 300 images."""
    spec = StudySpec([Trial(skill=skill) for skill in SKILLS])
    folder = make_study(tmp_path_factory.mktemp("rules"), spec)
    return SplitPredictions(read_trials(folder), "blend", folder.labels("blend"))


def weights_of(blend: WeightedAverage) -> dict[int, float]:
    return dict(zip(blend.members, blend.weights, strict=True))


def test_weights_are_positive_and_add_up_to_one(
    rule: Callable[[tuple[int, ...]], Rule], predictions: SplitPredictions
) -> None:
    for size in range(1, len(SKILLS) + 1):
        for members in itertools.combinations(range(len(SKILLS)), size):
            blend = rule(members).fit(predictions)
            assert sum(blend.weights) == pytest.approx(1.0)
            assert min(blend.weights) > 0
            assert set(blend.members) <= set(members)
            assert len(set(blend.members)) == len(blend.members)


def test_a_single_member_answers_alone(
    rule: Callable[[tuple[int, ...]], Rule], predictions: SplitPredictions
) -> None:
    for member in range(len(SKILLS)):
        blend = rule((member,)).fit(predictions)
        assert weights_of(blend) == {member: pytest.approx(1.0)}
        assert np.array_equal(blend.log_p(predictions), predictions.log_p(member))


def test_the_order_of_members_changes_no_weight(
    rule: Callable[[tuple[int, ...]], Rule], predictions: SplitPredictions
) -> None:
    first = weights_of(rule((0, 1, 2, 3)).fit(predictions))
    for members in itertools.permutations(range(4)):
        assert weights_of(rule(members).fit(predictions)) == pytest.approx(first, abs=1e-6)


def test_only_the_rows_that_it_is_fitted_to_are_looked_at(
    rule: Callable[[tuple[int, ...]], Rule], predictions: SplitPredictions, tmp_path: Path
) -> None:
    """The other rows' labels are wrong in a second reading, and nothing changes."""
    rows = np.arange(0, len(predictions.labels), 3)
    wrong = (predictions.labels + 1) % 6
    wrong[rows] = predictions.labels[rows]
    misled = SplitPredictions(predictions.candidates, "blend", wrong)
    blend = rule((0, 1, 2, 3)).fit(predictions, rows)
    assert sum(blend.weights) == pytest.approx(1.0)
    assert rule((0, 1, 2, 3)).fit(misled, rows) == blend
    assert np.array_equal(blend.log_p(predictions, rows), blend.log_p(predictions)[rows])


def test_what_it_combines_are_log_probabilities_of_every_class(
    rule: Callable[[tuple[int, ...]], Rule], predictions: SplitPredictions
) -> None:
    p = np.exp(rule((0, 1, 2, 3)).fit(predictions).log_p(predictions))
    assert p.shape == (300, 6)
    assert np.allclose(p.sum(axis=1), 1, atol=1e-5)


def test_it_says_whether_labels_move_it(
    rule: Callable[[tuple[int, ...]], Rule], predictions: SplitPredictions
) -> None:
    shuffled = SplitPredictions(predictions.candidates, "blend", np.roll(predictions.labels, 1))
    asked = rule((0, 1, 2, 3))
    is_moved = weights_of(asked.fit(predictions)) != pytest.approx(weights_of(asked.fit(shuffled)))
    assert asked.is_fitted == is_moved
    assert asked.name
