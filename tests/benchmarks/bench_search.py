"""How much sooner carray's search finds the best: python tests/benchmarks/bench_search.py LCBENCH.

Every sampler and scheduler, with and without starting points from the other data sets, replayed on
LCBench's learning curves; and the portfolio alone against as many random trials. Needs the
surrogate's folder (YAHPO Gym's `lcbench`) and onnxruntime; 12 data sets and 20 seeds take a core
about a quarter of an hour, `--processes` shares them out.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import optuna

from carray.lab.lcbench import PAST_TRIALS, open_lcbench
from carray.lab.methods import PORTFOLIO_SIZE
from carray.lab.replay import LabRequest, replay_lab
from carray.lab.score import LabResult
from carray.lab.show import lab_lines
from carray.progress import progress

REACH = {False: 4.0, True: 10.0}  # without and with starting points, against random search


def portfolio_alone(folder: Path, count: int, metric: str, seeds: int) -> str:
    """Compare trials 1 to 6 of the leave-one-out portfolio with random ones, all full length."""
    sources = open_lcbench(folder, count, metric)
    sign = -1.0 if metric == "val/top1" else 1.0
    ours, randoms = [], []
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


def reached(result: LabResult) -> list[str]:
    """Say the best of each kind against what is to be reached."""
    lines = []
    for starts, target in REACH.items():
        best = min(
            (s for s in result.scores if s.method.starts is starts), key=lambda s: s.mean_regret
        )
        kind = "with" if starts else "without"
        ratio = best.sooner or 0.0
        lines.append(f"{kind} starting points: {best.method.name}: x{ratio:.1f} (x{target:.0f})")
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lcbench", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--data-sets", type=int, default=12)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--metrics", nargs="+", default=["val/log_loss", "val/top1"])
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for metric in given.metrics:
        start = time.perf_counter()
        request = LabRequest(
            lcbench=given.lcbench,
            data_sets=given.data_sets,
            metric=metric,
            seeds=given.seeds,
            processes=given.processes,
        )
        result = replay_lab(request, progress)
        print(f"\n{metric}, {time.perf_counter() - start:.0f} s")
        print("\n".join([*lab_lines(result), *reached(result)]))
        print(portfolio_alone(given.lcbench, given.data_sets, metric, given.seeds))


if __name__ == "__main__":
    main()
