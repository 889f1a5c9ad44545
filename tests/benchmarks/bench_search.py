"""How much sooner carray's search finds the best: python tests/benchmarks/bench_search.py LCBENCH.

Every sampler and scheduler, with and without starting points from the other data sets, replayed on
LCBench's learning curves. The data sets come in two halves: the methods that lead on the first are
judged on the second, which had no say in choosing them; and the portfolio alone is compared with as
many random trials. Needs the surrogate's folder (YAHPO Gym's `lcbench`) and onnxruntime. Two times
12 data sets and 20 seeds take a quiet core an hour for each metric, `--processes` shares them out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna

from carray.progress import progress
from carray.reports.search_benchmark import benchmark_lines
from carray.search_benchmark.curves import CurveSource
from carray.search_benchmark.lcbench import PAST_TRIALS, open_lcbench
from carray.search_benchmark.methods import PORTFOLIO_SIZE, BenchmarkRequest
from carray.search_benchmark.run import benchmark_sources
from carray.search_benchmark.score import BenchmarkResult, MethodScore

REACH = {False: 0.25, True: 0.1}  # of random search's budget, without and with starting points


def portfolio_alone(sources: Sequence[CurveSource], metric: str, seeds: int) -> str:
    """Compare trials 1 to 6 of the leave-one-out portfolio with random ones, all full length."""
    sign = -1.0 if metric == "val/top1" else 1.0
    ours: list[float] = []
    randoms: list[float] = []
    for source in sources:
        others = [other for other in sources if other.data != source.data]
        for seed in range(seeds):
            past = source.past(1000 + seed)
            low, width = past.losses.min(), np.median(past.losses) - past.losses.min()
            points = source.starts([other.past(seed) for other in others], PORTFOLIO_SIZE)
            drawn = past.points[:PORTFOLIO_SIZE]
            for recipes, found in ((points, ours), (drawn, randoms)):
                losses = (sign * source.curves(recipes)).min(axis=1)
                found.append((np.minimum.accumulate(losses) - low) / width)
    told = [
        " / ".join(f"{mean:.3f}" for mean in np.mean(rows, axis=0)[[0, 2, 5]])
        for rows in (ours, randoms)
    ]
    return (
        f"regret after 1 / 3 / 6 full trainings (0: best of {PAST_TRIALS} random): "
        f"portfolio {told[0]}, random {told[1]}"
    )


def judged(chosen_on: BenchmarkResult, judged_on: BenchmarkResult) -> list[str]:
    """Say what leads on the first half, and what that and the default are worth on the second."""
    lines = []
    for starts, target in REACH.items():
        first = [s for s in chosen_on.scores if s.method.starts is starts]
        second = {s.method: s for s in judged_on.scores}
        leads = min(first, key=lambda s: s.mean_regret).method
        default = next(s.method for s in first if s.method.shipped)
        kind = "with" if starts else "without"
        lines += [
            f"{kind} starting points, on data sets that had no say (reach: {target:.0%}):",
            f"  led on the others: {_told(second[leads])}",
            f"  default:           {_told(second[default])}",
        ]
    return lines


def _told(score: MethodScore) -> str:
    share = "over half" if score.share is None else f"{score.share:.1%}"
    return f"{score.method.name}: share {share}, mean regret {score.mean_regret:.3f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lcbench", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--data-sets", type=int, default=12, help="in each half")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--metrics", nargs="+", default=["val/log_loss", "val/top1"])
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for metric in given.metrics:
        request = BenchmarkRequest(metric=metric, seeds=given.seeds, processes=given.processes)
        sources = open_lcbench(given.lcbench, 2 * given.data_sets, metric)
        halves = (sources[::2], sources[1::2])
        results = []
        for number, half in enumerate(halves, start=1):
            start = time.perf_counter()
            results.append(benchmark_sources(half, request, progress))
            print(f"\n{metric}, half {number}, {time.perf_counter() - start:.0f} s")
            print("\n".join(benchmark_lines(results[-1])))
        print("\n".join(judged(results[0], results[1])))
        print(portfolio_alone(halves[0], metric, given.seeds))


if __name__ == "__main__":
    main()
