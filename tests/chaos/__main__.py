"""A study under faults, on nodes without a shared disk: `make chaos`, a table row for each seed.

    python -m tests.chaos --seeds 3 --trials 24

Nodes are namespaces of this machine (`nodes.py`), S3, MLflow and Postgres run on it
(`services.py`). A command that ends badly is typed again, on the next node.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from carray.data.preparation.prepare import prepare
from carray.data.synthetic import render_toycars
from tests.chaos.faults import Faults
from tests.chaos.nodes import Network, Node, command, why_not_here
from tests.chaos.outcome import groups_left, leaked, left_at_url
from tests.chaos.services import Postgres, Services
from tests.chaos.study import DATA, IMAGE_SIZE, TuneCommand

NODES = 3
LOOK_SECONDS = 0.5
AGAIN_SECONDS = 5.0  # until whoever sees that the command has ended types it again
COLUMNS = (
    "seed | Optuna in | faults | commands' exit codes | trials finished | failed | epochs lost "
    "(most of a trial at once) | begun again | records damaged | logits missing "
    "| MLflow runs doubled, missing | processes, groups leaked | minutes"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="make chaos")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one study each")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two faults")
    parser.add_argument("--faults", type=int, default=12, help="at most")
    parser.add_argument("--only", nargs="+", default=(), help="faults of these kinds alone")
    parser.add_argument("--minutes", type=float, default=20.0, help="until a study is given up")
    parser.add_argument("--keep", type=Path, help="a folder for the logs")
    asked = parser.parse_args()
    if why_not := why_not_here():
        print(f"make chaos: skipped, {why_not}")
        return 0
    if why_not := Postgres.why_not():
        print(f"make chaos: without Postgres ({why_not}); Optuna's studies are files")
    signal.signal(signal.SIGTERM, lambda *got: sys.exit(1))  # nodes and servers end with this
    with tempfile.TemporaryDirectory(prefix="carray-chaos-") as name:
        folder = Path(name)
        logs = asked.keep or folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with Network(), Services(folder / "services") as services:
            push_cars(folder / "cars")
            rows = [_run(seed, asked, folder, logs, services) for seed in asked.seeds]
    print(f"\n| {COLUMNS} |\n|{'---|' * len(COLUMNS.split('|'))}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return 0


def push_cars(folder: Path) -> None:
    """Draw toy cars and put them at their URL."""
    images = render_toycars(folder / "images", seed=3, images_per_class=50)
    prepare(images, folder / "data", val_size=0.2, blend_size=0.1, test_size=0.1)
    words = ["data", "push", str(folder / "data"), DATA, "--size", str(IMAGE_SIZE)]
    subprocess.run([*command("carray"), *words], check=True, stdout=subprocess.DEVNULL)


def _run(
    seed: int, asked: argparse.Namespace, folder: Path, logs: Path, services: Services
) -> list[str]:
    """Run one study to its end; return its row."""
    began_at = time.monotonic()
    name = f"chaos-{seed}"

    def say(text: str) -> None:
        print(f"{name} {time.monotonic() - began_at:5.0f} s  {text}", flush=True)

    # every other study: where there is no Postgres Optuna's file is mirrored
    postgres = services.postgres if seed % 2 else None
    tune = TuneCommand(name, asked.trials, seed, logs, postgres.url(name) if postgres else "")
    disks, variables = folder / name, services.environment()
    nodes: list[Node] = []
    new_node = partial(Node, folder=disks, environment=variables)
    try:
        for number in range(1, NODES + 1):
            nodes.append(new_node(number))
            nodes[-1].boot()
            nodes[-1].start_ray()
        say(f"Ray is up on {NODES} nodes")
        more = (postgres is not None, asked.only, say)
        faults = Faults(seed, nodes, new_node, services, tune, *more)
        _search(tune, nodes, faults, asked, say)
        faults.take_back(all_of_it=True)
        still, groups = leaked(nodes), groups_left(nodes[0])
    finally:
        services.s3_fails.unlink(missing_ok=True)
        for node in nodes:
            node.end()
    for line in still:
        say(f"leaked: {line}")
    left = left_at_url(name, asked.trials, folder / f"cache-{seed}", services.mlflow)
    kinds = sorted(set(faults.happened))
    counted = " ".join(f"{faults.happened.count(kind)} {kind}," for kind in kinds).rstrip(",")
    lost, most = tune.epochs_lost()
    row = [
        seed,
        "Postgres" if postgres else "a file",
        f"{len(faults.happened)}: {counted}",
        " ".join(map(str, tune.exit_codes)),
        f"{left.finished} of {asked.trials}",
        left.failed,
        f"{lost} ({most})",
        tune.begun_again(),
        left.damaged,
        left.logits_missing,
        f"{left.doubled}, {left.untracked}",
        f"{len(still)}, {groups}",
        f"{(time.monotonic() - began_at) / 60:.0f}",
    ]
    print(f"| {' | '.join(map(str, row))} |", flush=True)
    return [str(each) for each in row]


def _search(
    tune: TuneCommand,
    nodes: list[Node],
    faults: Faults,
    asked: argparse.Namespace,
    say: Callable[[str], None],
) -> None:
    """Let faults strike until the command ends with 0, or the time is up."""
    deadline = time.monotonic() + 60 * asked.minutes
    tune.start(nodes[0])
    strike_at = float("inf")
    while time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        faults.take_back()
        if tune.has_epochs() and strike_at == float("inf"):
            strike_at = time.monotonic() + faults.pause(asked.every)
        if tune.has_ended():
            assert tune.node is not None
            say(f"the command on {tune.node.name} ended with {tune.exit_codes[-1]}")
            if tune.exit_codes[-1] == 0:
                return
            time.sleep(AGAIN_SECONDS)
            faults.take_back()
            while not (up := [node for node in nodes if node.has_ray()]):
                time.sleep(LOOK_SECONDS)
                faults.take_back()
            after = [node for node in up if node.number > tune.node.number]
            tune.start((after or up)[0])
        elif time.monotonic() > strike_at and len(faults.happened) < asked.faults:
            faults.strike()
            strike_at = time.monotonic() + faults.pause(asked.every)
    say("given up")
    tune.stop()
    tune.has_ended()


if __name__ == "__main__":
    sys.exit(main())
