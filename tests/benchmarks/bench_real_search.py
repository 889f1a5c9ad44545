"""How soon carray's search finds what random full-length trials find, on your own data.

python tests/benchmarks/bench_real_search.py DATA SPACE [--start-from OTHER_STUDY]

Studies over one space and one prepared data set: random search without stopping; `plain`, carray's
defaults without starting points; `default`, which takes the shipped portfolio's where they lie in
the space; and `starts`, from what `--start-from` names. Each says after how many epochs, in the
order they ended, it had the best of the random ones. A study that is there already is gone on with,
so the same command repeats the table. One study of each is one draw: `carray replay-lab
RANDOM_STUDY` replays the random one's curves at many seeds.
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
from carray.records import TrialRecord
from carray.search.recorded import Floats, sign_of

REACH = {"plain": 0.25, "starts": 0.1}  # of the random study's epochs


def losses_in_order(trials: Sequence[TrialRecord], metric: str) -> Floats:
    """Return the loss after each epoch of a study, (epochs,), in the order the epochs ended.

    A record has the times of a trial's begin and end; its epochs are taken as equally long.
    """
    ended: list[tuple[float, float]] = []
    for trial in (t for t in trials if t.kind == "search" and t.epochs):
        assert trial.started_at is not None and trial.ended_at is not None
        times = np.linspace(trial.started_at, trial.ended_at, len(trial.epochs) + 1)[1:]
        losses = [sign_of(metric) * row.get(metric, np.inf) for row in trial.epochs]
        ended += zip(times, losses, strict=True)
    return np.array([loss for _, loss in sorted(ended)])


def epochs_to(losses: Floats, target: float) -> int | None:
    """Return after how many epochs a loss of `target` was there; None: never."""
    reached = np.flatnonzero(losses <= target)
    return int(reached[0]) + 1 if reached.size else None


def table(studies: dict[str, Study]) -> list[str]:
    """Compare the studies with the one called `random`."""
    metric = studies["random"].record.metric
    losses = {name: losses_in_order(s.trials, metric) for name, s in studies.items()}
    total, target = len(losses["random"]), float(losses["random"].min())
    lines = [
        f"{metric}; random search without stopping: {len(studies['random'].trials)} trials, "
        f"{total} epochs, best {abs(target):.4f}",
        f"{'study':<24}{'trials':>8}{'epochs':>8}{'best':>10}{'epochs to it':>14}{'share':>8}",
    ]
    for name, own in losses.items():
        needs = epochs_to(own, target)
        share = "never" if needs is None else f"{needs / total:.1%}"
        lines.append(
            f"{name:<24}{len(studies[name].trials):>8}{len(own):>8}{abs(own.min()):>10.4f}"
            f"{needs or '-':>14}{share:>8}"
        )
    return lines


def main() -> None:
    """Run what is missing of the studies; print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("space")
    parser.add_argument("--start-from", action="append", default=[])
    parser.add_argument("--trials", type=int, default=40, help="of the random study")
    parser.add_argument("--searched", type=int, default=40, help="trials of the other studies")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--name", default="bench", help="the studies' names begin with it")
    parser.add_argument("--runs")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    common: dict[str, Any] = {"runs": given.runs, "overrides": parse_sets(given.sets)}
    searched = {"trials": given.searched, "seed": given.seed}
    wanted: dict[str, dict[str, Any]] = {
        "random": {"trials": given.trials, "sampler": "random", "scheduler": "none"},
        "plain": searched | {"start_from": ("none",)},
        "default": searched,
    }
    if given.start_from:
        wanted["starts"] = searched | {"start_from": tuple(given.start_from)}
    for kind, options in wanted.items():
        name = study_name(given.name, kind, given.seed)
        carray.tune(given.data, given.space, name=name, **common, **options)
    names = {kind: study_name(given.name, kind, given.seed) for kind in wanted}
    print("\n".join(table({kind: load_study(name, given.runs) for kind, name in names.items()})))
    reach = ", ".join(f"{kind} {share:.0%}" for kind, share in REACH.items())
    print(f"to be reached: {reach}; one study of each: the shares are one draw")


def study_name(begin: str, kind: str, seed: int) -> str:
    """Return the name of a study; the random one serves every seed."""
    return f"{begin}-{kind}" if kind == "random" else f"{begin}-{kind}-{seed}"


if __name__ == "__main__":
    main()
