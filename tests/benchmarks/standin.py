"""Studies without training: the driver, its ledger, records and tracking are real, epochs are not.

Lanes wait as long as an epoch is said to last, in one process a node of Ray's; mailbox and lanes
are a study's else. A trial's objective is a smooth function of what was drawn, so that samplers and
schedulers have something to find.
"""

from __future__ import annotations

import io
import math
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import ray

from carray.config import TrialConfig
from carray.data.manifest import Manifest, PrepareSettings
from carray.lanes.lane import Lanes, LaneShape
from carray.lanes.mailbox_client import RayMailbox
from carray.lanes.messages import Answer, LaneOrder
from carray.lanes.ray_groups import RayWorkerGroups
from carray.lanes.this_node import on_node
from carray.metrics import EPOCH_METRICS, LOG_LOSSES
from carray.records import StudyFolder, StudyRecord, TrialFolder, TrialRecord
from carray.runs_folder import RunsFolder
from carray.search.disk_budget import DiskBudget
from carray.search.observers.console import Board
from carray.search.observers.prometheus import StudyGauges
from carray.search.request import StudyRequest
from carray.search.sampling.samplers import DEFAULT_SAMPLER
from carray.search.scheduling.driver import Driver
from carray.search.setup import StudySetup, open_ledger
from carray.search.space.loading import load_space
from carray.search.warm_start.first_trials import StartingPoints
from carray.tracking import SubprocessTracker, Tracker
from carray.training.epoch_order import EpochOutcome

LABELS = np.arange(100) % 10  # of `val`


def space_text(epochs: int) -> str:
    """Return a space of four parameters."""
    return f"""
version: 1
metric: val/log_loss
direction: minimize
fixed: {{epochs: {epochs}, pretrained: false, backbone: test_resnet}}
search:
  optimizer.lr: {{loguniform: [1e-4, 1e-1]}}
  optimizer.weight_decay: {{loguniform: [1e-4, 1e-1]}}
  augment.strength: {{uniform: [0.0, 1.0]}}
  dropout: {{uniform: [0.0, 0.5]}}
"""


def epoch_metrics(config: TrialConfig, epoch: int, seconds: float) -> dict[str, float]:
    """Return a whole row: the loss falls from epoch to epoch, to what the drawn values allow."""
    off = (math.log10(config.optimizer.lr) + 2) ** 2 + config.augment.strength + config.dropout
    row = dict.fromkeys(EPOCH_METRICS, seconds + 0.001 * epoch)
    return row | dict.fromkeys(LOG_LOSSES, off + 2.0 / epoch)


class NodeLanes:
    """The lanes of one node, a thread each: they take orders from the mailbox as ranks do."""

    def __init__(self, mailbox: RayMailbox, epoch_seconds: float) -> None:
        self._mailbox, self._seconds = mailbox, epoch_seconds

    def run(self, lane: int) -> None:
        """Carry out orders until the lane is sent home."""
        incarnation, sequence = uuid.uuid4().hex, 0
        self._mailbox.arrive(lane, incarnation, ray.get_runtime_context().get_node_id())
        while True:
            sequence, order = self._mailbox.take(lane, incarnation, sequence)
            if order.kind == "exit":
                return
            self._mailbox.answer(lane, sequence, self._answer(order))

    def _answer(self, order: LaneOrder) -> Answer:
        """Wait as long as an epoch lasts; leave logits where a trial ends."""
        job = order.job
        assert job is not None
        if order.ends_trial:
            logits = np.random.default_rng(job.config.seed).normal(size=(len(LABELS), 10))
            TrialFolder(Path(job.folder)).write_logits({"val": logits.astype(np.float16)})
            return Answer()
        time.sleep(self._seconds)
        row = epoch_metrics(job.config, job.epoch, self._seconds)
        return Answer(
            outcome=EpochOutcome(row, True, "", 1_000_000, "random:0", compute=None, hardware=None),
            lane=0,
        )


class StandInGroups(RayWorkerGroups):
    """Worker groups that don't train: one actor a node has all of the node's lanes."""

    def __init__(self, mailbox: RayMailbox, num_lanes: int, epoch_seconds: float) -> None:
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        actor, size = ray.remote(NodeLanes), {"num_cpus": 0, "max_concurrency": num_lanes}
        self._on_nodes = []
        for node in nodes:
            placed = actor.options(**size, scheduling_strategy=on_node(node))
            self._on_nodes.append(placed.remote(mailbox, epoch_seconds))

    def run(self, lane: int) -> None:
        """Run a lane, on each node in turn, until it is sent home."""
        ray.get(self._on_nodes[lane % len(self._on_nodes)].run.remote(lane))

    def end(self) -> None:
        """End the actors."""
        for lanes in self._on_nodes:
            ray.kill(lanes)


def standin_lanes(num_lanes: int, epoch_seconds: float) -> Lanes:
    """Return lanes that don't train; the mailbox and the way to it are a study's."""
    mailbox = RayMailbox.begun(num_lanes)
    groups = StandInGroups(mailbox, num_lanes, epoch_seconds)
    return Lanes(LaneShape(1, 1.0), num_lanes, mailbox, groups)


@contextmanager
def study(
    folder: Path,
    trials: int,
    epochs: int,
    num_lanes: int,
    epoch_seconds: float,
    *more: Tracker,
    sampler: str = DEFAULT_SAMPLER,
) -> Iterator[tuple[Driver, StudyFolder]]:
    """Open a study under `folder` as `carray tune` does, its tracking included; `more` watch."""
    runs = RunsFolder.at(folder / "runs")
    files = runs.study(f"of-{trials}")
    files.path.mkdir(parents=True)
    files.space_file.write_text(space_text(epochs))
    space = load_space(str(files.space_file))
    record = StudyRecord(
        name=files.path.name,
        trials=trials,
        max_epochs=epochs,
        sampler=sampler,
        manifest_hash="m",
        started_at=time.time(),
    )
    record.write(files.record_file)
    files.write_labels({"val": LABELS})
    tracker = SubprocessTracker(runs, print)
    observers = [Board(stream=io.StringIO()), tracker, StudyGauges(record), *more]
    for observer in observers:
        observer.study_started(record)
    setup = StudySetup(
        request=StudyRequest(data=folder, space=str(files.space_file)),
        runs=runs,
        folder=files,
        manifest=Manifest(
            folder, ("a", "b"), pd.DataFrame(), record.manifest_hash, PrepareSettings()
        ),
        space=space,
        space_note="",
        study=record,
        starts=StartingPoints(),
        grace_epochs=epochs,
        refit_lengths=(epochs,),
        storage=os.environ.get("CARRAY_STORAGE") or f"sqlite:///{files.optuna_file}",
        weights=None,
    )
    lanes = standin_lanes(num_lanes, epoch_seconds)
    lanes.start()
    budget = DiskBudget(runs, 50.0, 3)

    def keep_budget(ended: TrialRecord) -> None:
        budget.enforce(files.trial(ended.number))

    try:
        with open_ledger(setup, [], observers) as ledger:
            yield Driver(ledger, lanes, str(folder), keep_budget), files
    finally:
        for observer in observers:
            observer.study_ended(record)
            observer.close()
        lanes.stop()
