"""Ensembles within so many milliseconds: what is chosen, refused, and shown as a front."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from carray.analysis.experiments import experiments_of
from carray.cli.app import app
from carray.ensemble import build_ensemble
from carray.ensemble.budget import Budget, best_subset, grow, parse_budget
from carray.ensemble.front import find_front
from carray.errors import CarrayError, ConfigError, RecordError
from carray.export.bench import bench_model
from carray.predictions.network_costs import NetworkCost, NetworkCosts, network_of
from carray.records import StudyFolder
from carray.reports.ensemble import ensemble_lines
from carray.reports.experiments import experiment_lines, experiments_csv
from carray.reports.listing import leaderboard, leaderboard_lines
from carray.reports.network_costs import front_lines
from carray.reports.pictures.front import front_picture
from carray.reports.table import within
from carray.runs_folder import RunsFolder
from carray.training.runner import hardware_of
from tests.ensemble.studies import BACKBONES, StudySpec, Trial, make_study
from tests.trained import Trained

MS = dict(zip(BACKBONES, (30.0, 10.0, 20.0), strict=True))


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """Six trials of three networks, which were timed."""
    skills = (2.6, 2.2, 2.4, 2.6, 2.2, 2.4)
    trials = [Trial(skill=skill, noise=2.0) for skill in skills]
    folder = make_study(tmp_path / "runs", StudySpec(trials))
    hardware = str(hardware_of(torch.device("cpu")))
    networks = {str(network_of(record.config)): record.config for record in folder.records()}
    NetworkCosts(
        networks=tuple(
            NetworkCost(
                network=network_of(config),
                device="cpu",
                hardware=hardware,
                milliseconds=MS[config.backbone],
                mb=2 * MS[config.backbone],
                multiply_adds=10**9,
            )
            for config in networks.values()
        )
    ).write(folder.costs_file)
    return folder


def test_the_best_subset_is_the_best_of_all_and_growing_keeps_to_the_budget() -> None:
    rng = np.random.default_rng(0)
    p_MN = rng.uniform(0.1, 0.9, (7, 40)).astype(np.float32)
    costs = [(float(ms), 1.0) for ms in rng.integers(1, 9, 7)]
    budget = Budget(12.0, 3.0)

    def loss(members: tuple[int, ...]) -> float:
        return float(-np.log(p_MN[list(members)].mean(axis=0)).mean())

    def holds(members: tuple[int, ...]) -> bool:
        return sum(costs[m][0] for m in members) <= 12 and len(members) <= 3

    every = [own for size in (1, 2, 3) for own in combinations(range(7), size) if holds(own)]
    best = best_subset(p_MN, costs, budget)
    assert loss(best) == pytest.approx(min(map(loss, every)))
    for per_ms in (True, False):
        grown = grow(p_MN, costs, budget, per_ms)
        assert holds(grown)
        assert loss(best) <= loss(grown) + 1e-6


def test_an_ensemble_keeps_to_its_budget(study: StudyFolder) -> None:
    runs = study.path.parents[1]
    options = {"runs": runs, "logits_only": True, "open_test": False, "keep_best": False}
    made = build_ensemble(max_latency="50ms", **options)
    assert sum(MS[member.backbone] for member in made.packaged) == made.milliseconds <= 50
    assert made.mb == 2 * made.milliseconds
    assert len(made.packaged) > 1
    assert "Within 50 ms on cpu: the networks of its" in "\n".join(ensemble_lines(made))
    small = build_ensemble(max_size="25MB", **options)
    assert [member.backbone for member in small.packaged] == [BACKBONES[1]]
    with pytest.raises(
        RecordError, match=r"no trial is within 5 ms on cpu: the quickest.*10\.0 ms"
    ):
        build_ensemble(max_latency="5ms", **options)
    with pytest.raises(ConfigError, match=r"--tta flip can't be had with --max-latency"):
        build_ensemble(max_latency="50ms", tta="flip", runs=runs)


def test_a_study_without_candidates_is_told_before_anything_is_timed(study: StudyFolder) -> None:
    for record in study.records():
        study.trial(record.number).logits_file.unlink()
    with pytest.raises(RecordError, match=r"no trial yet .*; search on$"):
        find_front(study.path.name, runs=study.path.parents[1])


def test_the_front_goes_from_one_trial_to_many_and_says_how_each_is_packaged(
    study: StudyFolder,
) -> None:
    found = find_front(runs=study.path.parents[1])
    times = [point.milliseconds for point in found.points]
    losses = [point.log_loss.value for point in found.points]
    assert times == sorted(set(times))
    assert losses == sorted(set(losses), reverse=True)
    assert len(found.points[0].trials) == 1
    assert len(found.points[-1].trials) > 1
    assert all(point.milliseconds <= point.max_latency for point in found.points)
    lines = front_lines(found)
    assert max(map(len, lines[: lines.index("next, one of:")])) <= 100
    with within(64):
        narrow = front_lines(found)
    assert max(map(len, narrow[: narrow.index("next, one of:")])) <= 64
    assert "    " + " ".join(one.rpartition("/")[2] for one in found.points[-1].trials) in narrow
    assert f"--max-latency {found.points[0].max_latency:g}ms" in "\n".join(lines)
    again = build_ensemble(
        max_latency=f"{found.points[-1].max_latency}ms",
        runs=study.path.parents[1],
        logits_only=True,
        open_test=False,
    )
    assert {member.trial for member in again.packaged} == set(found.points[-1].trials)
    assert front_picture(found).stat().st_size > 10_000


@pytest.mark.parametrize(
    ("latency", "size", "on", "wanted"),
    [
        ("15ms", None, "cpu", Budget(15.0, math.inf, "cpu")),
        ("0.5 s", "1.5GB", "cuda", Budget(500.0, 1500.0, "cuda")),
        (None, None, "cpu", None),
    ],
)
def test_budgets_are_read(
    latency: str | None, size: str | None, on: str, wanted: Budget | None
) -> None:
    assert parse_budget(latency, size, on) == wanted


@pytest.mark.parametrize("text", ["15", "0ms", "-3ms", "fast", "15MB"])
def test_a_budget_without_its_unit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a number with its unit, as in 15ms"):
        parse_budget(text, None, "cpu")


def test_a_study_is_timed_once_and_its_tables_show_it(trained: Trained, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(trained.runs, runs)
    folder = RunsFolder(runs).study("single")
    done = CliRunner().invoke(app, ["bench", "single", "--runs", str(runs)])
    assert done.exit_code == 0, done.output
    assert "test_resnet" in done.output
    assert "--pareto" in done.output
    [cost] = NetworkCosts.of(folder).networks
    before = folder.costs_file.read_bytes()
    CliRunner().invoke(app, ["bench", "single", "--runs", str(runs), "--json"])
    assert folder.costs_file.read_bytes() == before
    assert leaderboard(folder)["ms_cpu"].tolist() == [cost.milliseconds] * 2
    assert f"{cost.milliseconds:.1f} ms an image on cpu" in "\n".join(leaderboard_lines(folder, 2))
    found = experiments_of(folder)
    assert f"an image: {cost.milliseconds:.1f} ms on cpu" in "\n".join(experiment_lines(found))
    assert experiments_csv(found)[0].endswith("verdict,remark,ms_cpu,mb,multiply_adds")


def test_a_bench_says_which_form_it_times_and_how_far_it_is(trained: Trained) -> None:
    shown: list[tuple[object, ...]] = []
    done: list[int] = []

    @contextmanager
    def progress(*what: object) -> Iterator[Callable[[int], None]]:
        shown.append(what)
        yield done.append

    asked: dict[str, Any] = {
        "batches": (1, 2),
        "seconds": 0.01,
        "runs": trained.runs,
        "progress": progress,
    }
    bench_model("single/0000", forms=("eager",), **asked)
    assert shown == [("timing eager (form 1 of 1)", 2, "batch sizes")]
    assert done == [1, 1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("single", "--forms", "eager"), "--forms is for a model, and single is a study"),
        (("single", "--batches", "1,8,32"), "--batches is for a model, and single is a study"),
        (("single", "--seconds", "1"), "--seconds is for a model, and single is a study"),
        (("single", "--on", "cuda"), "--on cuda needs a GPU"),
        (("single/0000", "--on", "cuda"), "--on cuda is of a study"),
    ],
)
def test_what_a_bench_can_not_do_is_said_in_one_sentence(
    trained: Trained, words: tuple[str, ...], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = CliRunner().invoke(app, ["bench", *words, "--runs", str(trained.runs)])
    assert isinstance(done.exception, CarrayError), done.output
    assert str(done.exception).startswith(why)
    assert NetworkCosts.of(RunsFolder(trained.runs).study("single")).networks == ()
