"""How soon carray's search finds what random full-length trials find, on your own data.

python tests/benchmarks/bench_real_search.py DATA SPACE [--start-from OTHER_STUDY]

Studies over one space and one prepared data set: random search without stopping; `plain`, carray's
defaults without starting points; `default`, which takes the shipped portfolio's where they lie in
the space; and `starts`, from what `--start-from` names. Each says after how many epochs, in the
order they ended, it had the best of the random ones of its seed. A study that is there already is
gone on with, so the same command repeats the table. A study is one draw: give several `--seeds`, or
let `carray replay-lab RANDOM_STUDY` replay the random one's curves at many.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import carray
from carray.api import Study, load_study
from carray.cli.shared import parse_sets
from carray.metrics import Objective
from carray.records import TrialRecord
from carray.typing import Float64s

REACH = {"plain": 0.25, "default": 0.1, "starts": 0.1}  # of the random study's epochs


def losses_in_order(trials: Sequence[TrialRecord], metric: str) -> Float64s:
    """Return the loss after each epoch of a study, (epochs,), in the order the epochs ended.

    A record has the times of a trial's begin and end; its epochs are taken as equally long.
    """
    ended: list[tuple[float, float]] = []
    for trial in (t for t in trials if t.kind == "search" and t.epochs):
        assert trial.started_at is not None and trial.ended_at is not None
        times = np.linspace(trial.started_at, trial.ended_at, len(trial.epochs) + 1)[1:]
        losses = [Objective(metric).sign * row.get(metric, np.inf) for row in trial.epochs]
        ended += zip(times, losses, strict=True)
    return np.array([loss for _, loss in sorted(ended)])


def epochs_to(losses: Float64s, target: float) -> int | None:
    """Return after how many epochs a loss of `target` was there; None: never."""
    reached = np.flatnonzero(losses <= target)
    return int(reached[0]) + 1 if reached.size else None


def table(studies: dict[str, Study]) -> tuple[list[str], dict[str, float]]:
    """Compare the studies of one seed with the one called `random`.

    Returns the lines, and each study's share of the random one's epochs; infinite: never.
    """
    metric = studies["random"].record.metric
    losses = {name: losses_in_order(s.trials, metric) for name, s in studies.items()}
    total, target = len(losses["random"]), float(losses["random"].min())
    lines = [
        f"{metric}; random search without stopping: {len(studies['random'].trials)} trials, "
        f"{total} epochs, best {abs(target):.4f}",
        f"{'study':<24}{'trials':>8}{'epochs':>8}{'best':>10}{'epochs to it':>14}{'share':>8}",
    ]
    needs = {name: epochs_to(own, target) for name, own in losses.items()}
    shares = {name: np.inf if need is None else need / total for name, need in needs.items()}
    lines += [
        f"{name:<24}{len(studies[name].trials):>8}{len(own):>8}{abs(own.min()):>10.4f}"
        f"{needs[name] or '-':>14}{share_text(shares[name]):>8}"
        for name, own in losses.items()
    ]
    return lines, shares


def share_text(share: float) -> str:
    """Return a share as a table has it."""
    return f"{share:.1%}" if np.isfinite(share) else "never"


def main() -> None:
    """Run what is missing of the studies; print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("space")
    parser.add_argument("--start-from", action="append", default=[])
    parser.add_argument("--trials", type=int, default=40, help="of the random studies")
    parser.add_argument("--searched", type=int, default=40, help="trials of the other studies")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--name", default="bench", help="the studies' names begin with it")
    parser.add_argument("--runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    searched = {"trials": given.searched}
    wanted: dict[str, dict[str, Any]] = {
        "random": {"trials": given.trials, "sampler": "random", "scheduler": "none"},
        "plain": searched | {"start_from": ("none",)},
        "default": searched,
    }
    if given.start_from:
        wanted["starts"] = searched | {"start_from": tuple(given.start_from)}
    common: dict[str, Any] = {"runs": given.runs, "overrides": parse_sets(given.sets)}
    shares: dict[str, list[float]] = {kind: [] for kind in wanted}
    for seed in given.seeds:
        names = {kind: f"{given.name}-{kind}-{seed}" for kind in wanted}
        for kind, name in names.items():
            carray.tune(given.data, given.space, name=name, seed=seed, **common, **wanted[kind])
        lines, own = table({kind: load_study(name, given.runs) for kind, name in names.items()})
        print("\n".join([f"seed {seed}", *lines]))
        for kind, share in own.items():
            shares[kind].append(share)
    for kind, reach in REACH.items():
        if kind in shares:
            middle = share_text(float(np.median(shares[kind])))
            each = ", ".join(map(share_text, shares[kind]))
            print(f"{kind}: median share {middle} of {len(shares[kind])} seeds ({each}); ", end="")
            print(f"to be reached: {reach:.0%}")


if __name__ == "__main__":
    main()
