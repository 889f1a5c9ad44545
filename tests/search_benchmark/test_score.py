"""Regret, how much sooner, and what is proposed, on replays made by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from carray.reports.search_benchmark import benchmark_lines, proposal_lines
from carray.search_benchmark.methods import (
    BASELINE,
    BenchmarkRequest,
    Method,
    methods_for,
    shipped_method,
)
from carray.search_benchmark.score import BenchmarkResult, MethodRuns, Proposal, score

EPOCHS = 10
BUDGET = 20  # full trainings of the baseline; the others get 10
HALF = BUDGET // 2
BETTER = Method("tpe", "median")
SHIPPED = shipped_method(EPOCHS)
METHODS = [BASELINE, SHIPPED, BETTER]


def replays(sooner_by: float, noise: float = 0.0, seeds: int = 6, name: str = "a") -> MethodRuns:
    """Losses fall from 2 to 1 over the budget; the better method gets there `sooner_by` times."""
    rng = np.random.default_rng(ord(name))
    at = np.arange(1, HALF * EPOCHS + 1) / (BUDGET * EPOCHS)
    slow = 2.0 - at
    fast = 2.0 - np.minimum(1.0, at * sooner_by)
    best = np.stack([[slow] * seeds, [slow] * seeds, [fast] * seeds])
    best += noise * rng.normal(size=(3, seeds, 1))
    ends = np.ones(seeds, np.float32)
    return MethodRuns(name, EPOCHS, best.astype(np.float32), ends, best_known=0.5, median=2.5)


def scored(*made: MethodRuns) -> BenchmarkResult:
    return score(METHODS, made, BenchmarkRequest(seeds=6, budget=BUDGET))


def test_regret_is_0_at_the_best_known_and_1_at_the_median() -> None:
    result = scored(replays(4.0))
    assert result.scores[0].regret[HALF] == pytest.approx((1.5 - 0.5) / 2.0)
    assert result.scores[0].regret[5] == pytest.approx((1.75 - 0.5) / 2.0, abs=0.01)


def test_a_replay_that_beats_the_best_known_becomes_it() -> None:
    made = replays(4.0)
    made = MethodRuns(made.name, EPOCHS, made.best, made.random_ends, best_known=1.4, median=3.0)
    assert scored(made).scores[2].regret[HALF] == pytest.approx(0.0)


def test_share_is_what_the_baselines_end_costs() -> None:
    baseline, _, better = scored(replays(4.0)).scores
    assert baseline.share is None  # it needs all of the budget, and half is looked at
    assert better.share == pytest.approx(0.25, abs=0.01)
    assert better.shares == (better.share,)


def test_shares_are_told_over_data_sets() -> None:
    made = [replays(factor, name=n) for factor, n in ((2.5, "a"), (4.0, "b"), (10.0, "c"))]
    better = scored(*made).scores[2]
    assert better.shares == pytest.approx((0.4, 0.25, 0.1), abs=0.01)
    told = (better.share_low, better.share, better.share_high)
    assert told == pytest.approx((0.1, 0.25, 0.4), abs=0.01)


def test_half_of_the_seeds_must_get_there() -> None:
    made = replays(4.0)
    made.best[2, :2] = 2.0  # two of six seeds never do
    assert scored(made).scores[2].share == pytest.approx(0.25, abs=0.01)
    assert scored(made).scores[2].share_high is None
    made.best[2, :4] = 2.0
    assert scored(made).scores[2].share is None


def test_a_method_that_needs_over_half_of_the_budget_has_no_share() -> None:
    result = scored(replays(0.5))
    assert result.scores[2].share is None and result.scores[2].shares == (None,)
    assert ">50%" in "\n".join(benchmark_lines(result))


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
    assert not mixed.clear and mixed.method == SHIPPED


def test_a_method_that_leads_on_one_data_set_alone_is_judged_on_the_others() -> None:
    """The best on the whole is the best of c alone; where it wasn't chosen it is worse."""
    made = [replays(factor, name=n) for factor, n in ((0.8, "a"), (0.8, "b"), (20.0, "c"))]
    proposal = scored(*made).proposal
    assert scored(*made).scores[2].mean_regret < scored(*made).scores[1].mean_regret
    assert proposal.gain < 0 and not proposal.clear
    assert proposal.method == SHIPPED


def test_a_single_replay_proves_nothing() -> None:
    assert not score(
        METHODS, [replays(4.0, seeds=1)], BenchmarkRequest(seeds=1, budget=20)
    ).proposal.clear


def test_the_table_fits_100_columns_and_its_json_has_the_same_figures() -> None:
    result = scored(replays(4.0, noise=0.01))
    lines = benchmark_lines(result)
    assert max(map(len, lines)) <= 100
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert plain["scores"][2]["name"] == "tpe, median, grace 1"
    assert f"{plain['scores'][2]['regret']['10']:.3f}" in "\n".join(lines)


def test_the_longest_proposal_fits_100_columns() -> None:
    method = Method("tpe-univariate", "hyperband", 3, 10, starts=True)
    asha = Method("tpe-univariate", "asha", 3, 10, starts=True)
    lines = [
        line
        for proposed in (method, asha)
        for clear in (True, False)
        for gain in (0.1234, -0.1234)
        for line in proposal_lines(Proposal(proposed, gain, 0.1, clear))
    ]
    assert max(map(len, lines)) <= 100
    assert any("--start-from" in line for line in lines)


def test_the_default_is_marked_and_the_widest_row_fits() -> None:
    methods = methods_for(300, with_starts=True)
    best, ends = np.ones((len(methods), 6, HALF * EPOCHS), np.float32), np.ones(6, np.float32)
    made = [MethodRuns(name, EPOCHS, best, ends, best_known=0.5, median=2.5) for name in "ab"]
    lines = benchmark_lines(score(methods, made, BenchmarkRequest(seeds=6, budget=BUDGET)))
    assert max(map(len, lines)) <= 100
    assert sum("*" in line for line in lines) == 3  # what it means, without and with starts
