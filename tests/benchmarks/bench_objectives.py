"""What ASHA does to the front of a loss and a cost.

    python tests/benchmarks/bench_objectives.py LCBENCH

On curves of LCBench's networks, whose cost is how many parameters they have, 40 random trials run
one after the other: all to their end, stopped by the loss alone, or stopped by those that cost at
most as much. What is lost is how far the best loss found at each cost is from the best there is.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from ray.tune.schedulers import TrialScheduler

from carray.metrics import VAL_LOG_LOSS
from carray.search.scheduling.hopeless import HopelessRule
from carray.search.scheduling.schedulers import build_scheduler, default_grace_epochs
from carray.search.scheduling.trainable import EPOCH, NETWORK_COST
from carray.search_benchmark.lcbench import open_lcbench
from carray.typing import Float64s

WAYS = ("all to their end", "by the loss alone", "by those as cheap")
FEATURES, CLASSES = 30, 8  # of a data set, roughly: they decide few of the parameters


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("lcbench", type=Path)
    parser.add_argument("--sets", type=int, default=12)
    parser.add_argument("--trials", type=int, default=40)
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    found = defaultdict(list)
    for bench in open_lcbench(asked.lcbench, asked.sets, VAL_LOG_LOSS):
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
        drawn = [bench.draw(study.ask()) for _ in range(asked.trials)]
        costs = np.array([parameters(params) for params in drawn])
        curves = np.asarray(bench.curves(drawn))
        for way in WAYS:
            found[way].append(run(curves, costs, way))
    print(f"{'stopped':<22}{'epochs':>9}{'of the front':>15}{'lost along it':>16}")
    for way, rows in found.items():
        epochs, front, lost = np.mean(rows, axis=0)
        print(f"{way:<22}{epochs:>9.2f}{front:>15.2f}{lost:>16.4f}")


def parameters(params: Mapping[str, Any]) -> float:
    """Return a funnel network's parameters, to the next of four steps a decade."""
    widths = np.linspace(params["max_units"], CLASSES, int(params["num_layers"]) + 1)
    count = FEATURES * params["max_units"] + float(widths[:-1] @ widths[1:])
    return float(10 ** (round(4 * np.log10(count)) / 4))


def run(curves: Float64s, costs: Float64s, way: str) -> tuple[float, float, float]:
    """Return shares: of all epochs, what was trained; of the front, what was stopped; the loss."""
    trials, epochs = curves.shape
    grace = default_grace_epochs(epochs)
    asha = build_scheduler(
        "asha",
        metric=VAL_LOG_LOSS,
        direction="minimize",
        max_epochs=epochs,
        grace_epochs=grace,
    )
    hopeless, done = HopelessRule(VAL_LOG_LOSS), np.full(trials, epochs)
    for number, curve in enumerate(curves):
        cost = {"size": float(costs[number])} if way == WAYS[2] else {}
        trial = SimpleNamespace(trial_id=str(number), config={NETWORK_COST: cost})
        asha.on_trial_add(None, trial)
        for epoch in range(1, epochs + 1):
            row = {EPOCH: epoch, VAL_LOG_LOSS: float(curve[epoch - 1])}
            is_weak = asha.on_trial_result(None, trial, row) == TrialScheduler.STOP
            seen = curve[:epoch].tolist()
            is_weak = hopeless.is_hopeless(None, seen, epochs, cost) or is_weak
            if is_weak and way != WAYS[0]:
                done[number] = epoch
                break
        else:
            hopeless.learn(None, curve.tolist(), cost)
        asha.on_trial_complete(None, trial, row)
    whole = curves.min(axis=1)
    best = np.array([curve[:count].min() for curve, count in zip(curves, done, strict=True)])
    front = [
        number for number in range(trials) if whole[number] <= whole[costs <= costs[number]].min()
    ]
    lost = [best[costs <= limit].min() - whole[costs <= limit].min() for limit in np.unique(costs)]
    stopped = float((done[front] < epochs).mean())
    return float(done.mean() / epochs), stopped, float(np.mean(lost))


if __name__ == "__main__":
    main()
