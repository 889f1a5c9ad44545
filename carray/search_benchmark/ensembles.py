"""Searches simulated on recorded logits, and judged by the ensemble of what they drew.

A draw takes the nearest recorded trial that the search has not taken yet, so another seed of a
recipe has predictions of its own, as far as there are records of it. Trials that were stopped are
left out: every draw counts as one training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import optuna

from carray.config import TrialConfig, flatten
from carray.errors import RecordError, counted
from carray.predictions.averaging import pick_from_best
from carray.predictions.ensemble_gain import cross_fitted_loss, expected_gain
from carray.progress import silent
from carray.records import StudyFolder, TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.search.sampling.local import LocalSampler
from carray.search.sampling.members import EnsembleMembers
from carray.search.sampling.optuna_trials import draw_valid
from carray.search.sampling.samplers import BLIND, DEFAULT_SAMPLER, build_sampler
from carray.search.space.loading import load_space
from carray.search.space.space import SearchSpace
from carray.search.warm_start.known_recipes import recipe_points
from carray.search.warm_start.recipe_distance import RecipeDistance, squared_distances
from carray.search_benchmark.curves import FEWEST_CURVES, check_alike
from carray.search_benchmark.methods import BenchmarkRequest, check_counts
from carray.search_benchmark.score import CHECKPOINTS, half_of
from carray.typing import Float32s, Float64s, Progress

AHEAD = 5  # trials that a forecast is about
METHODS = (  # sampler, goal; the first is what the others are compared with
    ("random", "single"),
    ("tpe-univariate", "single"),
    (DEFAULT_SAMPLER, "single"),
    (DEFAULT_SAMPLER, "ensemble"),
)


@dataclass(frozen=True)
class TrialPool:
    """What complete trials of one data set left, of one study or several."""

    name: str
    metric: str
    space: SearchSpace
    records: tuple[TrialRecord, ...]
    probabilities: Float32s
    """(trials, images): each trial's probability of the right class of each `val` image."""

    @classmethod
    def of(cls, folders: Sequence[StudyFolder]) -> Self:
        """Read studies of one data set; the first one's space is searched.

        Raises:
            RecordError: too few of their trials left logits.
        """
        records: list[TrialRecord] = []
        rows: list[Float32s] = []
        for folder in folders:
            members = EnsembleMembers(folder)
            for record in folder.records():
                if record.kind == "search" and record.state is TrialState.COMPLETE:
                    own = members.probabilities([record])
                    records += [record] * len(own)
                    rows += list(own)
        name = ", ".join(folder.path.name for folder in folders)
        if len(rows) < 2 * FEWEST_CURVES:
            raise RecordError(
                f"{name}: {counted(len(rows), 'complete trial')} with logits, a replay of "
                f"ensembles needs {2 * FEWEST_CURVES} of one data set; name more of its studies"
            )
        space = load_space(folders[0].space_file)
        return cls(name, folders[0].record().metric, space, tuple(records), np.stack(rows))

    @cached_property
    def nearness(self) -> tuple[RecipeDistance, Float64s]:
        """How far recipes are apart, and where the recorded ones are."""
        points = [self.point(record.config) for record in self.records]
        fitted = RecipeDistance.fit(points)
        return fitted, fitted.vectors(points)

    def point(self, config: TrialConfig) -> dict[str, Any]:
        """Return what the space draws of a trial; what it leaves open may differ among studies."""
        drawn = {name for _, block in self.space.branches() for name in block.search}
        return {name: v for name, v in flatten(config).items() if name in {*drawn, "backbone"}}

    @cached_property
    def starts(self) -> list[dict[str, Any]]:
        """What a study of the space tries first."""
        return self.space.start_points() or recipe_points(self.space, self.space.images or 0)[0]


def open_pools(request: BenchmarkRequest) -> list[TrialPool]:
    """Read the studies named, or the newest; those of one data set make one pool.

    Raises:
        RecordError: one isn't there, or too few trials left logits, or metrics differ.
    """
    runs = RunsFolder.at(request.runs)
    names: list[str | None] = [*request.studies] or [None]
    by_data: dict[str, list[StudyFolder]] = defaultdict(list)
    for folder in (runs.find_study(name) for name in names):
        by_data[folder.record().manifest_hash].append(folder)
    return [TrialPool.of(folders) for folders in by_data.values()]


def draw_trials(pool: TrialPool, sampler: str, goal: str, seed: int, count: int) -> list[int]:
    """Search the pool for `count` trials; return their numbers in it, in order."""
    drawer = build_sampler(sampler, seed, count)
    study = optuna.create_study(direction="minimize", sampler=drawer)
    for point in [] if sampler in BLIND else pool.starts:
        study.enqueue_trial(point)
    taken: list[int] = []
    asked: list[int] = []  # their numbers in Optuna

    def anchors() -> dict[int, float]:
        picks = pick_from_best(pool.probabilities[taken]) if taken else []
        return {asked[pick]: picks.count(pick) / len(picks) for pick in picks}

    if isinstance(drawer, LocalSampler) and goal == "ensemble":
        drawer.anchors = anchors
    fitted, places = pool.nearness
    while len(taken) < count:
        trial, _, config = draw_valid(study, pool.space, {})
        own = squared_distances(fitted.vectors([pool.point(config)]), places)[0]
        own[taken] = np.inf
        taken.append(int(own.argmin()))
        asked.append(trial.number)
        study.tell(trial, pool.records[taken[-1]].best(pool.metric))
    return taken


@dataclass(frozen=True)
class EnsembleScore:
    """One way to search, over all data sets and seeds."""

    sampler: str
    goal: str
    shipped: bool
    losses: dict[int, float]
    """{trials: log-loss of the cross-fitted greedy ensemble of them}."""
    less: dict[int, tuple[float, float]]
    """{trials: the same less the first method's, and its standard error over replays}."""
    single: float
    """Of the best trial of all, chosen on other images."""


@dataclass(frozen=True)
class ForecastScore:
    """What was foretold of the next of random trials, and what came."""

    count: int
    foretold: float
    came: float
    within: float
    """Share of them that were off by no more than the deviation told; of a normal one's, 0.68."""


@dataclass(frozen=True)
class EnsembleBenchmark:
    """All that one call measured."""

    scores: tuple[EnsembleScore, ...]
    forecast: ForecastScore
    pools: tuple[str, ...]
    trials: tuple[int, ...]
    """Of each pool."""
    seeds: int


def benchmark_ensembles(request: BenchmarkRequest, show: Progress = silent) -> EnsembleBenchmark:
    """Simulate searches on the recorded trials, and judge each by its ensemble.

    Raises:
        ConfigError: a number is out of its range.
        RecordError: there are too few trials.
    """
    check_counts(request, "seeds", "budget")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pools = open_pools(request)
    check_alike([pool.metric for pool in pools])
    count = min(half_of(request.budget), *(len(pool.records) // 2 for pool in pools))
    marks = [*(mark for mark in CHECKPOINTS if mark < count), count]
    searches = [(pool, seed) for pool in pools for seed in range(request.seeds)]
    losses = np.empty((len(METHODS), len(searches), len(marks) + 1))  # the last: the best trial's
    forecasts: list[tuple[float, float, float]] = []
    with show("replaying", losses.shape[0] * losses.shape[1], "searches") as advance:
        for at, (pool, seed) in enumerate(searches):
            for number, (sampler, goal) in enumerate(METHODS):
                rows = pool.probabilities[draw_trials(pool, sampler, goal, seed, count)]
                losses[number, at, :-1] = [cross_fitted_loss(rows[:mark]) for mark in marks]
                losses[number, at, -1] = cross_fitted_loss(rows, is_single=True)
                if number == 0:  # later draws of a search are what the pool has left
                    forecasts += forecasts_of(rows)
                advance(1)
    return EnsembleBenchmark(
        scores=tuple(_scores(losses, marks)),
        forecast=_forecast_score(forecasts),
        pools=tuple(pool.name for pool in pools),
        trials=tuple(len(pool.records) for pool in pools),
        seeds=request.seeds,
    )


def forecasts_of(p_MN: Float32s) -> Iterator[tuple[float, float, float]]:
    """Yield (foretold, its deviation, what came) of a search's trials, every `AHEAD` of them."""
    for done in range(2 * AHEAD, len(p_MN) - AHEAD + 1, AHEAD):
        expected = expected_gain(p_MN[:done], AHEAD)
        if expected is not None:
            came = cross_fitted_loss(p_MN[:done]) - cross_fitted_loss(p_MN[: done + AHEAD])
            yield expected.log_loss, expected.deviation, came


def _scores(losses: Float64s, marks: Sequence[int]) -> Iterator[EnsembleScore]:
    """Score methods by their losses, (methods, replays, marks and the best trial's)."""
    for number, (sampler, goal) in enumerate(METHODS):
        less = losses[number] - losses[0]
        errors = less.std(axis=0, ddof=1 if len(less) > 1 else 0) / np.sqrt(len(less))
        means = losses[number].mean(axis=0)
        yield EnsembleScore(
            sampler=sampler,
            goal=goal,
            shipped=(sampler, goal) == METHODS[-1],
            losses={mark: float(mean) for mark, mean in zip(marks, means, strict=False)},
            less={m: (float(less[:, i].mean()), float(errors[i])) for i, m in enumerate(marks)},
            single=float(means[-1]),
        )


def _forecast_score(forecasts: Sequence[tuple[float, float, float]]) -> ForecastScore:
    if not forecasts:
        return ForecastScore(0, float("nan"), float("nan"), float("nan"))
    foretold, deviation, came = np.array(forecasts).T
    within = (np.abs(came - foretold) <= deviation).mean()
    return ForecastScore(len(came), float(foretold.mean()), float(came.mean()), float(within))
