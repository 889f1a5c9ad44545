"""Runs the search benchmark: simulates every method on every data set at every seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import numpy.typing as npt
import optuna

from carray.metrics import Objective
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.search_benchmark.curves import CurveSource, StudySource, check_alike, worst_finite
from carray.search_benchmark.methods import (
    BASELINE,
    PORTFOLIO_SIZE,
    BenchmarkRequest,
    Method,
    check_counts,
    methods_for,
)
from carray.search_benchmark.score import BenchmarkResult, MethodRuns, half_of, score
from carray.search_benchmark.simulate import CurveCache, SimulatedStudy
from carray.typing import Advance, Float64s, Progress

POOL = 1000  # random trials that say what a data set's median is
REFERENCE_SEED = 987_654


def run_benchmark(request: BenchmarkRequest, show: Progress = silent) -> BenchmarkResult:
    """Replay recorded curves through every method, and propose what the next study should do.

    Raises:
        ConfigError: a number is out of its range.
        RecordError: there are too few curves, or they are of different metrics.
    """
    check_counts(request, "seeds", "budget", "lanes", "processes")
    return benchmark_sources(open_sources(request), request, show)


def open_sources(request: BenchmarkRequest) -> list[CurveSource]:
    """Open LCBench's data sets, the studies named, or the newest study."""
    from carray.search_benchmark.lcbench import open_lcbench

    sources: list[CurveSource] = []
    if request.lcbench is not None:
        sources += open_lcbench(request.lcbench, request.data_sets, request.metric)
    runs = RunsFolder.at(request.runs)
    names: list[str | None] = [*request.studies] or ([] if sources else [None])
    sources += [StudySource.open(runs.find_study(name)) for name in names]
    check_alike([source.metric for source in sources])
    return sources


def benchmark_sources(
    sources: Sequence[CurveSource], request: BenchmarkRequest, show: Progress = silent
) -> BenchmarkResult:
    """Replay these sources; starting points come from those of other data sets."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with_starts = len({source.data for source in sources}) > 1
    longest = max(source.max_epochs for source in sources)
    methods = methods_for(longest, with_starts)
    tasks = [
        _Task(sources, index, methods, request, seed)
        for index in range(len(sources))
        for seed in range(request.seeds)
    ]
    runs: list[_Run] = []
    with show("replaying", len(tasks) * len(methods), "studies") as advance:
        for run in _all_runs(tasks, request.processes, advance):
            runs.append(run)  # noqa: PERF402 each one may take a minute
    replays = [
        _gathered(source, runs[index * request.seeds :][: request.seeds])
        for index, source in enumerate(sources)
    ]
    return score(methods, replays, request, [s.note for s in sources if s.note])


@dataclass(frozen=True)
class _Run:
    """Every method once on one data set."""

    best: npt.NDArray[np.float32]
    """(methods, epochs of half the budget): the lowest loss seen so far."""
    random_end: float
    """What the baseline finds with the whole budget."""


@dataclass(frozen=True)
class _Task:
    """All methods on one data set at one seed."""

    sources: Sequence[CurveSource]
    index: int
    methods: Sequence[Method]
    request: BenchmarkRequest
    seed: int

    def run(self, advance: Advance = lambda count: None) -> _Run:
        source, request = self.sources[self.index], self.request
        budget = request.budget * source.max_epochs
        half = half_of(request.budget) * source.max_epochs
        best = np.empty((len(self.methods), half), np.float32)
        end = math.nan
        cache, starts = CurveCache(source), self._starts()
        for number, method in enumerate(self.methods):
            study = SimulatedStudy(
                source,
                method,
                self.seed,
                budget_epochs=budget if method == BASELINE else half,
                lanes=request.lanes,
                starts=starts if method.starts else (),
                cache=cache,
            )
            found = study.run()
            best[number] = found[:half]
            if method == BASELINE:
                end = float(found[-1])
            advance(1)
        return _Run(best, end)

    def _starts(self) -> list[dict[str, object]]:
        source = self.sources[self.index]
        others = [other for other in self.sources if other.data != source.data]
        return source.starts([other.past(self.seed) for other in others], PORTFOLIO_SIZE)


def _gathered(source: CurveSource, runs: Sequence[_Run]) -> MethodRuns:
    best = np.stack([run.best for run in runs], axis=1)
    ends = np.array([run.random_end for run in runs], np.float32)
    losses = _pool_losses(source)
    lowest, middle = float(losses.min()), float(np.median(losses))
    return MethodRuns(source.name, source.max_epochs, best, ends, lowest, middle)


def _run(task: _Task) -> _Run:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return task.run()


def _all_runs(tasks: Sequence[_Task], processes: int, advance: Advance) -> Iterator[_Run]:
    if processes == 1:
        for task in tasks:
            yield task.run(advance)
        return
    workers = min(processes, len(tasks))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for run in pool.map(_run, tasks):
            advance(len(run.best))
            yield run


def _pool_losses(source: CurveSource) -> Float64s:
    if isinstance(source, StudySource):
        return source.recorded.losses
    sampler = optuna.samplers.RandomSampler(seed=REFERENCE_SEED)
    study = optuna.create_study(sampler=sampler)
    drawn = [source.draw(study.ask()) for _ in range(POOL)]
    losses: Float64s = worst_finite(source.curves(drawn), Objective(source.metric).sign).min(axis=1)
    return losses
