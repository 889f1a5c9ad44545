"""Portfolios: what is chosen from past studies, and how it is written down."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carray.cli import main
from carray.config import build_config
from carray.errors import ConfigError, RecordError
from carray.search.warm_start.portfolio import (
    WORST_REGRET,
    Portfolio,
    build_portfolio,
    choose,
    greedy,
    portfolio_of_studies,
    regrets_of,
)
from carray.search.warm_start.starting_points import shipped_portfolios
from carray.search.warm_start.study_curves import RecordedStudy, read_recorded
from tests.search_benchmark.studies import hill_losses, past_study


def table(
    ideal: float, name: str, data: str = "", trials: int = 25, seed: int = 0
) -> RecordedStudy:
    rng = np.random.default_rng(seed)
    points = tuple(
        {"optimizer.lr": float(10 ** rng.uniform(-4, -1)), "dropout": float(rng.uniform(0, 0.5))}
        for _ in range(trials)
    )
    curves = np.array([hill_losses(ideal, point["optimizer.lr"], 9) for point in points])
    full = np.ones(trials, np.bool_)
    return RecordedStudy(name, data or name, "val/log_loss", points, curves, full)


def test_greedy_takes_what_helps_the_data_sets_least_served_so_far() -> None:
    regrets = np.array([[0.3, 0.0, 1.0, 0.9], [0.3, 1.0, 0.0, 0.9], [0.3, 1.0, 1.0, 0.2]])
    assert greedy(regrets, 4) == [0, 1, 2, 3]
    assert greedy(regrets, 2) == [0, 1]


def test_when_nothing_helps_any_more_the_best_of_what_is_left_is_next() -> None:
    assert greedy(np.array([[0.0, 0.5, 0.3], [0.0, 0.2, 0.3]]), 3) == [0, 2, 1]


def test_draws_around_a_good_trial_and_trials_that_began_from_it_are_one_recipe() -> None:
    drawn = ((1e-3, 0.1), (1.1e-3, 0.11), (0.9e-3, 0.1), (1e-2, 0.4), (1e-4, 0.0), (3e-2, 0.5))
    points = tuple({"optimizer.lr": lr, "dropout": dropout} for lr, dropout in drawn)
    curves, full = np.array([[1.0 + n] for n in range(6)]), np.ones(6, np.bool_)
    one = RecordedStudy("a", "a", "val/log_loss", points, curves, full)
    assert [one.points.index(p) for p in build_portfolio([one], 3).recipes()] == [0, 3, 4]
    begun_from_it = points[:1] + points[3:]
    next_one = RecordedStudy("b", "a", "val/log_loss", begun_from_it, curves[:4], full[:4])
    recipes = build_portfolio([one, next_one], 6).recipes()
    assert [p["optimizer.lr"] for p in recipes].count(1e-3) == 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(0, 3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_greedy_takes_each_recipe_once_the_best_of_all_first(rows: list[list[float]]) -> None:
    regrets = np.array(rows)
    chosen = greedy(regrets, 5)
    assert sorted(chosen) == [0, 1, 2, 3, 4]
    assert regrets[:, chosen[0]].mean() == regrets.mean(axis=0).min()


def test_two_kinds_of_data_sets_get_a_recipe_each() -> None:
    studies = [table(-1.5, "a"), table(-1.6, "b", seed=1), table(-3.5, "c", seed=2)]
    lrs = [math.log10(studies[s].points[t]["optimizer.lr"]) for s, t in choose(studies, 2)]
    assert abs(lrs[0] + 1.55) < 0.25 and abs(lrs[1] + 3.5) < 0.25


def test_many_studies_of_one_data_set_do_not_outvote_another() -> None:
    often = [table(-1.5, f"a{n}", data="a", seed=n) for n in range(4)]
    studies = [*often, table(-3.5, "c", seed=9)]
    lrs = [math.log10(studies[s].points[t]["optimizer.lr"]) for s, t in choose(studies, 2)]
    assert min(lrs) < -3.2 and max(lrs) > -1.9


def test_a_recipe_that_a_study_knows_nothing_about_counts_as_its_median() -> None:
    here, far = (
        tuple({"backbone": name, "optimizer.lr": 0.01 + 0.01 * n} for n in range(5))
        for name in ("resnet", "vit")
    )
    curves = np.array([[1.0 + n] for n in range(5)])
    one = RecordedStudy("a", "a", "val/log_loss", here, curves, np.ones(5, np.bool_))
    other = RecordedStudy("b", "b", "val/log_loss", far, curves, np.ones(5, np.bool_))
    first = choose([one, other], 2)
    assert {study for study, _ in first} == {0, 1}


def test_regret_is_0_at_the_best_trial_1_at_the_median_and_bounded() -> None:
    points = tuple({"dropout": n / 10} for n in range(5))
    losses = np.array([[1.0], [2.0], [3.0], [4.0], [99.0]])
    full = np.ones(5, np.bool_)
    study = RecordedStudy("a", "a", "val/log_loss", points, losses, full)
    assert regrets_of(study).tolist() == [0.0, 0.5, 1.0, 1.5, WORST_REGRET]
    top1 = RecordedStudy("a", "a", "val/top1", points, -losses, full)
    assert regrets_of(top1).tolist() == regrets_of(study).tolist()


def test_a_distilled_portfolio_reads_back_as_it_was_written(tmp_path: Path) -> None:
    studies = [read_recorded(past_study(tmp_path, n, i)) for n, i in (("a", -2.0), ("b", -3.0))]
    portfolio = build_portfolio(studies)
    portfolio.write(tmp_path / "p.yaml")
    assert Portfolio.read(tmp_path / "p.yaml") == portfolio
    assert [origin.study for origin in portfolio.made_from] == ["a", "b"]
    assert portfolio.made_from[0].trials == 20 and portfolio.made_from[0].epochs == 9
    best = build_config(portfolio.recipes()[0])
    assert -3.3 < math.log10(best.optimizer.lr) < -1.7


def test_what_all_points_share_is_told_once(tmp_path: Path) -> None:
    past_study(tmp_path, "a", **{"augment.mixup": 0.2})
    portfolio = portfolio_of_studies(["a", "a"], size=3, runs=tmp_path)
    assert portfolio.shared["augment.mixup"] == 0.2 and "seed" not in portfolio.shared
    assert all(set(point) <= {"optimizer.lr", "dropout"} for point in portfolio.points)
    assert len(portfolio.made_from) == 1


def test_what_cannot_be_distilled_is_refused(tmp_path: Path) -> None:
    a = read_recorded(past_study(tmp_path, "a"))
    b = read_recorded(past_study(tmp_path, "b", metric="val/top1"))
    with pytest.raises(ConfigError, match="--size 0 must be at least 1"):
        build_portfolio([a], size=0)
    with pytest.raises(RecordError, match=r"one metric, not by val/log_loss and val/top1"):
        build_portfolio([a, b])
    with pytest.raises(RecordError, match="there is no study 'c'"):
        portfolio_of_studies(["c"], runs=tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: 2\nmetric: val/top1\npoints: [{dropout: 0.1}]", "version=2"),
        ("version: 1\nmetric: val/top1\npoints: []", "points"),
        ("version: 1\nmetric: val/top1\npoints: [{optimizer.l_r: 1e-3}]", "did you mean"),
        ("version: 1\nmetric: val/top1\npoints: [{dropout: 3}]", "point 1: dropout=3"),
        ("points: [", "this is no YAML"),
    ],
)
def test_a_broken_portfolio_is_refused_with_its_mistake(
    text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        Portfolio.read(tmp_path / "p.yaml")


@pytest.mark.parametrize("path", shipped_portfolios(), ids=lambda path: path.stem)
def test_every_shipped_portfolio_is_valid(path: Path) -> None:
    assert len(Portfolio.read(path).points) >= 3


def test_the_command_line_writes_a_portfolio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    past_study(tmp_path, "a")
    out = tmp_path / "mine.yaml"
    words = ["carray", "portfolio", "a", "--runs", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    said = capsys.readouterr().out
    assert f"{len(Portfolio.read(out).points)} recipes of 1 study: " in said
