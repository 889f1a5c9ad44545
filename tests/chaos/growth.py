"""1,000 trials that don't train on three nodes: does the driver grow? python -m tests.chaos.growth

Lanes stand in for real ones, on all nodes; driver, mailbox, records and tracking are a study's.
Optuna's studies and MLflow's runs are in Postgres, and the runs folder is seen by all nodes. It is
`tests/benchmarks/bench_growth.py trials` on the head.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.chaos.nodes import RAY_PORT, REPOSITORY, SUBNET, Network, Node, why_not_here
from tests.chaos.services import Postgres, Services

NODES = 3
BENCHMARK = REPOSITORY / "tests" / "benchmarks" / "bench_growth.py"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("counts", type=int, nargs="*", default=[100, 1000], help="trials, in turn")
    parser.add_argument("--lanes", type=int, default=64, help="that stand in for real")
    asked = parser.parse_args()
    if why_not := why_not_here() or Postgres.why_not():
        print(f"skipped: {why_not}")
        return 0
    with (
        tempfile.TemporaryDirectory(prefix="carray-growth-") as name,
        Network(),
        Services(Path(name) / "services", mlflow_in_postgres=True) as services,
    ):
        assert services.postgres
        storage = {"CARRAY_STORAGE": services.postgres.url("optuna")}
        variables = services.environment() | storage | {"TMPDIR": name}
        return _measure([Node(n + 1, Path(name), variables) for n in range(NODES)], asked)


def _measure(nodes: list[Node], asked: argparse.Namespace) -> int:
    """Boot the nodes and run the benchmark on the first; return its exit code."""
    try:
        for node in nodes:
            node.boot()
            node.start_ray()
        words = [sys.executable, str(BENCHMARK), "trials", *map(str, asked.counts)]
        where = ["--lanes", str(asked.lanes), "--address", f"{SUBNET}.11:{RAY_PORT}"]
        return nodes[0].start(*words, *where, log=sys.stdout.buffer).wait()
    finally:
        for node in nodes:
            node.end()


if __name__ == "__main__":
    sys.exit(main())
