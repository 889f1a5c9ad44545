#!/usr/bin/env python
"""Search backbones on the cluster that this job is submitted to: `carray tune`, as a job.

    ray job submit jobs/tune_backbones.py
    ray job submit --working-dir . -- python jobs/tune_backbones.py --data /ABS/CARS --trials 30

The first needs a head node started in the project's folder. Paths must be ones that every node
sees, or URLs. Without --data the project's own toy cars are drawn and searched with the quick
space, else with the backbones space. The best 3 are trained again, longer, and all of it is kept
in $CARRAY_RUNS or ~/carray; every option of `carray tune` says otherwise.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

try:
    import carray.api
    import carray.cli
    import carray.progress
    import carray.storage.remote
except ModuleNotFoundError:  # `python` on the head node's PATH is not the one that runs Ray
    own = Path(__file__).resolve().parents[1] / ".venv" / "bin" / "python"
    if not own.exists() or Path(sys.prefix) == own.parents[1]:
        sys.exit(f"carray is not installed for {sys.executable}: start Ray in its environment")
    os.execv(own, [str(own), *sys.argv])

HOME = Path.home() / "carray"


def words(given: list[str]) -> list[str]:
    """Return the words of `carray tune`; defaults suit a machine that this job has never seen."""
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n")[0],
        epilog="Every other option goes to `carray tune`.",
        allow_abbrev=False,
    )
    parser.add_argument("--data", help="a prepared data set: an absolute path, or a URL")
    parser.add_argument(
        "--runs",
        default=os.environ.get("CARRAY_RUNS") or str(HOME),
        help="a folder, or a URL; default: $CARRAY_RUNS or ~/carray",
    )
    asked, others = parser.parse_known_args(given)
    is_far = carray.storage.remote.is_url(asked.runs)
    runs = asked.runs if is_far else Path(asked.runs).expanduser().resolve()
    toys = (HOME if is_far else runs) / "demo"
    data = asked.data or carray.api.toy_data(toys, progress=carray.progress.progress)
    space = "backbones" if asked.data else "quick"
    return ["tune", str(data), "--space", space, "--refit", "3", "--runs", str(runs), *others]


if __name__ == "__main__":
    carray.cli.run(lambda: carray.cli.main(words(sys.argv[1:])))
