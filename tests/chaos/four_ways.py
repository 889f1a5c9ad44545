"""One study four ways: `make four-ways`; the same trials, to the bit, and what each way took.

    python -m tests.chaos.four_ways --trials 12 --epochs 3 --ranks 1 2

On one machine, on three nodes with a shared folder, on three with none, and from S3. Nodes are
those of `nodes.py`, too small for two ranks of a trial. Only the driver's node has the pretrained
weights (drawn ones, or those of `--weights`) and the package of the trials' teacher.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carray.data.preparation.prepare import prepare
from carray.data.synthetic import render_toycars
from carray.metrics import DATA_WAIT, EPOCH_SECONDS, IMAGES_PER_SECOND, PEAK_MEMORY_GIB
from carray.models.weights import read_weights
from carray.records import HELD_SPLITS, StudyFolder, TrialFolder, TrialRecord
from carray.runs_folder import RunsFolder
from carray.storage.mirror import mirror_of
from carray.storage.remote import is_url
from tests.chaos.nodes import CPUS, RAY_PORT, SUBNET, Network, Node, command, why_not_here
from tests.chaos.services import Services
from tests.chaos.study import DATA, RUNS

IMAGE_SIZE = 64
CPUS_PER_RANK = 1.2  # of a node's 2: one rank fits, of one thread
MEASURED = (DATA_WAIT, EPOCH_SECONDS, IMAGES_PER_SECOND, PEAK_MEMORY_GIB)  # never twice the same
SPACE = """
version: 1
metric: val/log_loss
direction: minimize
fixed:
  backbone: {backbone}
  pretrained: true
  epochs: {epochs}
  image_size: {image_size}
  device_batch_size: 16
  distill.teacher: /srv/models/teacher
search:
  optimizer.lr: {{loguniform: [1e-4, 1e-2]}}
  augment.mixup: {{choice: [0.0, 0.2]}}
"""
SHARED = "/srv/shared"
COLUMNS = (
    "ranks a trial | way | exit code | complete | other parameters | other initial weights "
    "| other metrics | other logits | other weights | seconds"
)


@dataclass(frozen=True)
class Way:
    """Where a study's files are, and on how many nodes it runs."""

    name: str
    nodes: int
    data: str = "/srv/cars/data"
    runs: str = "/srv/runs"

    @property
    def is_shared(self) -> bool:
        """Whether nodes share a folder."""
        return self.runs.startswith(SHARED)

    def seen_from_outside(self, disks: Path) -> RunsFolder:
        """Return the runs folder as this machine sees it."""
        if is_url(self.runs):
            return RunsFolder.at(self.runs)
        return RunsFolder.at(disks / ("shared" if self.is_shared else "node-1") / "runs")


WAYS = (
    Way("one machine", 1),
    Way("three nodes, a shared folder", 3, f"{SHARED}/cars/data", f"{SHARED}/runs"),
    Way("three nodes, none", 3),
    Way("three nodes, S3", 3, DATA, RUNS),
)


@dataclass(frozen=True)
class Trial:
    """What a trial drew and left, as far as the way it was run must not matter."""

    params: dict[str, Any]
    initialisation: str
    metrics: tuple[dict[str, float], ...]
    logits: str
    weights: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="make four-ways")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="of a trial")
    parser.add_argument("--weights", type=Path, help="a file of timm's, BACKBONE.safetensors")
    parser.add_argument("--set", action="append", default=[], help="as `carray tune` has it")
    parser.add_argument("--keep", type=Path, help="a folder for the logs")
    asked = parser.parse_args()
    if why_not := why_not_here():
        print(f"make four-ways: skipped, {why_not}")
        return 0
    signal.signal(signal.SIGTERM, lambda *got: sys.exit(1))  # nodes and servers end with this
    with tempfile.TemporaryDirectory(prefix="carray-four-ways-") as name:
        folder = Path(name)
        asked.keep = asked.keep or folder / "logs"
        asked.keep.mkdir(parents=True, exist_ok=True)
        images = render_toycars(folder / "cars" / "images", seed=3, images_per_class=50)
        prepare(images, folder / "cars" / "data", val_size=0.2, blend_size=0.1, test_size=0.1)
        own = folder / "driver"  # what only its node has
        weights = bring_weights(asked.weights, own / "weights")
        bring_teacher(folder, weights, own / "models")
        found: dict[int, dict[int, Trial]] = {}
        rows = []
        with Network(), Services(folder / "services") as services:
            os.environ["CARRAY_CACHE"] = str(folder / "cache")
            for way in WAYS:
                rows += _run(way, asked, folder, own, weights.stem, services, found)
    print(f"\n| {COLUMNS} |\n|{'---|' * len(COLUMNS.split('|'))}")
    for row in sorted(rows, key=lambda row: row[0]):
        print(f"| {' | '.join(row)} |")
    return int(any(cell != "0" for row in rows for cell in (row[2], *row[4:9])))


def bring_weights(file: Path | None, into: Path) -> Path:
    """Copy pretrained weights, or draw what stands for them; return their file."""
    import timm
    import torch
    from safetensors.torch import save_file

    into.mkdir(parents=True)
    if file:
        return Path(shutil.copy(file, into))
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), into / "test_resnet.safetensors")
    return into / "test_resnet.safetensors"


def bring_teacher(folder: Path, weights: Path, into: Path) -> None:
    """Train a trial, and package it as `teacher`."""
    runs, data = folder / "teacher", str(folder / "cars" / "data")
    fixed = {"backbone": weights.stem, "pretrained": weights, "image_size": IMAGE_SIZE, "epochs": 2}
    words = [f"--set={name}={value}" for name, value in fixed.items()]
    package = ["ensemble", "--study", "single", "--top", "1", "--name", "teacher", "--no-track"]
    for called in (["train", data, *words], package):
        calls = [*command("carray"), *called, "--runs", str(runs)]
        subprocess.run(calls, check=True, stdout=subprocess.DEVNULL)
    shutil.move(runs / "models", into)


def _run(
    way: Way,
    asked: argparse.Namespace,
    folder: Path,
    own: Path,
    backbone: str,
    services: Services,
    found: dict[int, dict[int, Trial]],
) -> list[list[str]]:
    """Run the studies of one way; return their rows. The first way fills `found`."""
    disks = folder / way.name.replace(" ", "-").replace(",", "")
    nodes: list[Node] = []
    rows = []
    try:
        for number in range(1, way.nodes + 1):
            nodes.append(Node(number, disks, services.environment()))
            nodes[-1].boot()
            if way.is_shared:
                (disks / "shared").mkdir(exist_ok=True)
                (nodes[-1].disk / "shared").mkdir()
                nodes[-1].run("mount", "--bind", str(disks / "shared"), SHARED)
            nodes[-1].start_ray(CPUS * 3 // way.nodes)
        head = nodes[0]
        shutil.copytree(own, head.disk, dirs_exist_ok=True)
        _bring_cars(way, folder / "cars", head)
        for ranks in asked.ranks:
            name = f"{disks.name}-{ranks}"
            code, seconds = _tune(way, head, name, ranks, backbone, asked)
            trials = _trials(way.seen_from_outside(disks).find_study(name)) if code == 0 else {}
            first = found.setdefault(ranks, trials)
            different = [str(count) for count in _differences(trials, first)]
            complete = f"{len(trials)} of {asked.trials}"
            rows.append([str(ranks), way.name, str(code), complete, *different, f"{seconds:.0f}"])
            print(f"| {' | '.join(rows[-1])} |", flush=True)
    finally:
        for node in nodes:
            node.end()
    return rows


def _bring_cars(way: Way, cars: Path, head: Node) -> None:
    if is_url(way.data):
        words = ["data", "push", str(cars / "data"), way.data, "--size", str(IMAGE_SIZE)]
        head.run(*command("carray"), *words)
    else:
        shutil.copytree(cars, head.disk / Path(way.data).parent.relative_to("/srv"))


def _tune(
    way: Way, head: Node, name: str, ranks: int, backbone: str, asked: argparse.Namespace
) -> tuple[int, float]:
    """Run the command on the head; return its exit code and what it took, in seconds."""
    values = {"backbone": backbone, "epochs": asked.epochs, "image_size": IMAGE_SIZE}
    (head.disk / "space.yaml").write_text(SPACE.format(**values))
    words = ["tune", way.data, "--space", "/srv/space.yaml", "--study", name, "--no-pictures"]
    search = ["--trials", str(asked.trials), "--sampler", "random", "--scheduler", "none"]
    where = ["--runs", way.runs, "--weights", "/srv/weights", "--address"]
    lanes = ["--lanes", str(3 // ranks), "--workers-per-trial", str(ranks)]
    size = ["--cpus-per-worker", str(CPUS_PER_RANK)]
    fixed = [f"--set={each}" for each in asked.set]
    called = [*words, *search, *where, f"{SUBNET}.11:{RAY_PORT}", *lanes, *size, *fixed]
    began_at = time.monotonic()
    with (asked.keep / f"{name}.log").open("wb") as log:
        code = head.start(*command("carray"), *called, log=log).wait()
    return code, time.monotonic() - began_at


def _trials(study: StudyFolder) -> dict[int, Trial]:
    """Return what each complete trial of a study left."""
    complete = [pair for pair in study.trials() if str(pair[1].state) == "complete"]
    return {record.number: _left(folder, record) for folder, record in complete}


def _left(folder: TrialFolder, record: TrialRecord) -> Trial:
    if mirror := mirror_of(folder.path):
        mirror.pull(mirror.name_of(folder.path), lambda name: name.endswith((".npz", "tensors")))
    logits = hashlib.sha256()
    for split in HELD_SPLITS:
        logits.update(folder.logits(split).tobytes())
    rows = [{k: v for k, v in row.items() if k not in MEASURED} for row in record.epochs]
    weights = hashlib.sha256()  # of the tensors: the file's header has its parts in any order
    for name, tensor in sorted(read_weights(folder.weights_file).items()):
        weights.update(name.encode() + tensor.numpy().tobytes())
    digests = logits.hexdigest(), weights.hexdigest()
    return Trial(record.params, record.initialisation, tuple(rows), *digests)


def _differences(trials: dict[int, Trial], first: dict[int, Trial]) -> Sequence[int]:
    """Count the trials that aren't as the first way has them, by what differs."""
    fields = ("params", "initialisation", "metrics", "logits", "weights")
    pairs = [(trials.get(number), trial) for number, trial in first.items()]
    return [
        sum(mine is None or getattr(mine, each) != getattr(theirs, each) for mine, theirs in pairs)
        for each in fields
    ]


if __name__ == "__main__":
    sys.exit(main())
