"""One order of trials, by the metric that a study optimises."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from carray.metrics import OBJECTIVES, VAL_LOG_LOSS, VAL_TOP1, Objective, best_epoch

NAN, INF = math.nan, math.inf


@dataclass(frozen=True)
class Trial:
    name: str
    value: float

    def best(self, metric: str) -> float:
        return self.value


@pytest.mark.parametrize(
    ("metric", "order"), [(VAL_LOG_LOSS, [0.1, 0.5, 2.0]), (VAL_TOP1, [2.0, 0.5, 0.1])]
)
def test_the_best_comes_first_and_what_is_not_finite_last(metric: str, order: list[float]) -> None:
    objective = Objective(metric)
    values = [NAN, 0.5, INF, 0.1, -INF, 2.0]
    assert sorted(values, key=objective.key)[:3] == order
    trials = [Trial(str(value), value) for value in values]
    best = objective.best(trials)
    assert best is not None
    assert best.value == order[0]
    assert [trial.value for trial in sorted(trials, key=objective.key_of)][:3] == order


def test_of_equals_the_first_is_the_best_and_of_none_there_is_none() -> None:
    objective = Objective(VAL_LOG_LOSS)
    assert objective.best([Trial("a", 1.0), Trial("b", 1.0)]) == Trial("a", 1.0)
    assert objective.best([]) is None


@pytest.mark.parametrize("metric", OBJECTIVES)
def test_only_what_is_finite_is_better(metric: str) -> None:
    objective = Objective(metric)
    less = objective.direction == "minimize"
    assert objective.is_better(0.1, 0.5) is less
    assert objective.is_better(0.5, 0.1) is not less
    assert not objective.is_better(0.5, 0.5)
    for value in (NAN, INF, -INF):
        assert not objective.is_better(value, 0.5)
        assert not objective.is_better(value, NAN)
        assert objective.is_better(0.5, value)


def test_the_best_epoch_is_the_earliest_of_equals_and_none_of_none() -> None:
    rows = [{}, {VAL_TOP1: NAN}, {VAL_TOP1: 0.3}, {VAL_TOP1: 0.7}, {VAL_TOP1: 0.7}]
    assert best_epoch(rows, VAL_TOP1) == 4
    assert best_epoch(rows[:2], VAL_TOP1) is None
    assert best_epoch([], VAL_TOP1) is None
