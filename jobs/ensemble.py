#!/usr/bin/env python
"""Combine a study's best trials on the cluster: `carray ensemble`, as a job.

    ray job submit jobs/ensemble.py
    ray job submit --working-dir . -- python jobs/ensemble.py --runs /ABS/RUNS --study autumn

It takes the newest study where none is named, reads records and logits, and needs no GPU. Studies
are looked for in $CARRAY_RUNS or ~/carray, unless --runs says where.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

try:
    import carray.cli
    import carray.ensemble
except ModuleNotFoundError:  # `python` on the head node's PATH is not the one that runs Ray
    own = Path(__file__).resolve().parents[1] / ".venv" / "bin" / "python"
    if not own.exists() or Path(sys.prefix) == own.parents[1]:
        sys.exit(f"carray is not installed for {sys.executable}: start Ray in its environment")
    os.execv(own, [str(own), *sys.argv])

RUNS = os.environ.get("CARRAY_RUNS") or str(Path.home() / "carray")

if __name__ == "__main__":
    carray.cli.main(["ensemble", "--runs", RUNS, *sys.argv[1:]])
