#!/usr/bin/env python
"""Search backbones on the cluster that this job is submitted to; a few lines over `carray.tune`.

    ray job submit jobs/tune_backbones.py
    ray job submit --working-dir . -- python jobs/tune_backbones.py --data /ABS/CARS --trials 30

The first needs a head node started in the project's folder. Paths must be ones that every node
sees. Without --data the project's own toy cars are drawn and searched with the quick space.
"""

# ruff: noqa: T201  # a job's log is what it prints

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = Path(os.environ.get("CARRAY_RUNS") or "~/carray").expanduser().resolve()

try:
    from carray import api
    from carray.search.placement.plan import gpus_asked
except ModuleNotFoundError:  # `python` on the head node's PATH is not the one that runs Ray
    own = ROOT / ".venv" / "bin" / "python"
    if not own.exists() or Path(sys.prefix) == own.parents[1]:
        sys.exit(f"carray is not installed for {sys.executable}: start Ray in its environment")
    os.execv(own, [str(own), *sys.argv])


def parse() -> argparse.Namespace:
    """Read the command line; defaults suit a machine that this job has never seen."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="a prepared data set, as an absolute path")
    parser.add_argument("--space", help="a YAML file or a name; with --data: backbones, else quick")
    parser.add_argument("--trials", type=int, help="in all; default: the space's, else 30")
    parser.add_argument("--study", help="its name; the same name goes on where it stopped")
    parser.add_argument("--runs", type=Path, default=HOME, help="default: $CARRAY_RUNS or ~/carray")
    parser.add_argument("--max-epochs", type=int, help="of a full trial, in place of the space's")
    parser.add_argument("--refit", type=int, default=3, help="train the best K again, longer")
    parser.add_argument("--workers-per-trial", type=int, default=1, help="DDP ranks of a trial")
    parser.add_argument("--gpus-per-trial", help="of all its ranks, or auto; default: one each")
    return parser.parse_args()


def find_space(name: str) -> str:
    """Return the project's own space of that name, wherever the job was started."""
    shipped = ROOT / "search_spaces" / f"{name}.yaml"
    return str(shipped) if shipped.exists() else name


def main() -> None:
    """Search, and say where the results are."""
    from carray.progress import progress
    from carray.reports.study import study_lines

    args = parse()
    runs = args.runs.expanduser().resolve()
    done = api.tune(
        args.data or api.toy_data(runs / "demo", progress=progress),
        find_space(args.space or ("backbones" if args.data else "quick")),
        trials=args.trials,
        name=args.study,
        runs=runs,
        max_epochs=args.max_epochs,
        refit=args.refit,
        workers_per_trial=args.workers_per_trial,
        gpus_per_trial=gpus_asked(args.gpus_per_trial),
    )
    print("\n".join(study_lines(done.folder)))
    print(f"study: {done.folder.path}")
    if not any(record.epochs for record in done.trials):
        sys.exit("no trial got through an epoch")
    print(f"then:  python jobs/ensemble.py --study {done.record.name} --runs {runs}")


if __name__ == "__main__":
    from carray.cli import run

    run(main)
