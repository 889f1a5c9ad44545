#!/usr/bin/env python
"""Combine a study's best trials on the cluster; a few lines over `carray.build_ensemble`.

    ray job submit jobs/ensemble.py
    ray job submit --working-dir . -- python jobs/ensemble.py --runs /ABS/RUNS --study autumn

It takes the newest study where none is named, reads records and logits, and needs no GPU.
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
    from carray import ensemble
except ModuleNotFoundError:  # `python` on the head node's PATH is not the one that runs Ray
    own = ROOT / ".venv" / "bin" / "python"
    if not own.exists() or Path(sys.prefix) == own.parents[1]:
        sys.exit(f"carray is not installed for {sys.executable}: start Ray in its environment")
    os.execv(own, [str(own), *sys.argv])


def parse() -> argparse.Namespace:
    """Read the command line; defaults suit a machine that this job has never seen."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--study", help="default: the newest search")
    parser.add_argument("--top", type=int, default=3, help="how many of the best trials vote")
    parser.add_argument("--name", help="the model package's; default: STUDY-topN")
    parser.add_argument("--runs", type=Path, default=HOME, help="default: $CARRAY_RUNS or ~/carray")
    return parser.parse_args()


def main() -> None:
    """Build the ensemble, and say where the model package is."""
    from carray.reports.ensemble import ensemble_lines

    args = parse()
    runs = args.runs.expanduser().resolve()
    made = ensemble.build_ensemble(args.study, top=args.top, runs=runs, name=args.name)
    print("\n".join(ensemble_lines(made)))
    print(f"model: {made.package}")


if __name__ == "__main__":
    from carray.cli import run

    run(main)
