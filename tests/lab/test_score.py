"""Regret, how much sooner, and what is proposed, on replays made by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from carray.lab.methods import BASELINE, Method, shipped_method
from carray.lab.replay import LabRequest
from carray.lab.score import LabResult, Proposal, Replays, score
from carray.lab.show import lab_lines, proposal_lines

EPOCHS = 10
BUDGET = 20
BETTER = Method("tpe", "median")
SHIPPED = shipped_method(EPOCHS)
METHODS = [BASELINE, SHIPPED, BETTER]


def replays(sooner_by: float, noise: float = 0.0, seeds: int = 6, name: str = "a") -> Replays:
    """Losses fall from 2 to 1 over the budget; the better method gets there `sooner_by` times."""
    rng = np.random.default_rng(ord(name))
    at = np.arange(1, BUDGET * EPOCHS + 1) / (BUDGET * EPOCHS)
    slow = 2.0 - at
    fast = 2.0 - np.minimum(1.0, at * sooner_by)
    best = np.stack([[slow] * seeds, [slow] * seeds, [fast] * seeds])
    best += noise * rng.normal(size=(3, seeds, 1))
    return Replays(name, EPOCHS, best.astype(np.float32), best_known=0.5, median=2.5)


def scored(*made: Replays) -> LabResult:
    return score(METHODS, made, LabRequest(seeds=6, budget=BUDGET))


def test_regret_is_0_at_the_best_known_and_1_at_the_median() -> None:
    result = scored(replays(4.0))
    assert result.scores[0].regret[BUDGET] == pytest.approx((1.0 - 0.5) / 2.0)
    assert result.scores[0].regret[5] == pytest.approx((1.75 - 0.5) / 2.0, abs=0.01)


def test_a_replay_that_beats_the_best_known_becomes_it() -> None:
    made = replays(4.0)
    made = Replays(made.name, EPOCHS, made.best, best_known=1.4, median=3.0)
    assert scored(made).scores[0].regret[BUDGET] == pytest.approx(0.0)


def test_sooner_is_the_ratio_of_budgets_and_the_baseline_is_1() -> None:
    baseline, _, better = scored(replays(4.0)).scores
    assert baseline.sooner == pytest.approx(1.0)
    assert better.sooner == pytest.approx(4.0, rel=0.05)
    assert better.needs == pytest.approx(BUDGET / 4, rel=0.05)
    assert better.sooner_low == pytest.approx(4.0, rel=0.05)


def test_a_method_that_never_gets_there_has_no_ratio() -> None:
    late = scored(replays(0.5)).scores[2]
    assert late.sooner is None and late.sooner_low is None
    assert "never" in "\n".join(lab_lines(scored(replays(0.5))))


def test_a_clearly_better_method_is_proposed() -> None:
    proposal = scored(replays(4.0)).proposal
    assert proposal.method == BETTER and proposal.clear
    assert proposal.gain > 0.1


def test_what_is_shipped_stays_where_nothing_is_clearly_better() -> None:
    proposal = scored(replays(1.02, noise=0.5)).proposal
    assert proposal.method == SHIPPED and not proposal.clear


def test_a_gain_on_one_of_two_data_sets_alone_is_not_clear() -> None:
    steady = scored(replays(4.0, name="a"), replays(4.0, name="b")).proposal
    mixed = scored(replays(4.0, name="a"), replays(1.0, name="b")).proposal
    assert steady.clear and steady.method == BETTER
    assert not mixed.clear and mixed.gain > 0.05


def test_a_single_replay_proves_nothing() -> None:
    assert not score(
        METHODS, [replays(4.0, seeds=1)], LabRequest(seeds=1, budget=20)
    ).proposal.clear


def test_the_table_fits_100_columns_and_its_json_has_the_same_figures() -> None:
    result = scored(replays(4.0, noise=0.01))
    lines = lab_lines(result)
    assert max(map(len, lines)) <= 100
    plain = json.loads(json.dumps(result.as_json(), allow_nan=False))
    assert plain["scores"][2]["name"] == "tpe, median, grace 1"
    assert f"{plain['scores'][2]['regret']['20']:.3f}" in "\n".join(lines)


def test_the_longest_proposal_fits_100_columns() -> None:
    method = Method("random", "hyperband", 3, 10, starts=True)
    asha = Method("random", "asha", 3, 10, starts=True)
    lines = [
        line
        for proposed in (method, asha)
        for clear in (True, False)
        for line in proposal_lines(Proposal(proposed, 0.1234, 0.1, clear))
    ]
    assert max(map(len, lines)) <= 100
    assert any("--start-from" in line for line in lines)
