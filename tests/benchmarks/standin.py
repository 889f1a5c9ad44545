"""Studies without training: the driver, its ledger, records and tracking are real, epochs are not.

`Desk` answers in the mailbox's place, after as long as an epoch is said to last; so the figures are
the driver's own. A trial's objective is a smooth function of what was drawn, so that samplers and
schedulers have something to find.
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray

from carray.config import TrialConfig
from carray.data.manifest import Manifest, PrepareSettings
from carray.lanes.mailbox_client import RayMailbox
from carray.lanes.messages import Answer, LaneOrder
from carray.metrics import EPOCH_METRICS, LOG_LOSSES
from carray.records import StudyFolder, StudyRecord, TrialFolder, TrialRecord
from carray.runs_folder import RunsFolder
from carray.search.disk_budget import DiskBudget
from carray.search.observers.console import Board
from carray.search.observers.prometheus import StudyGauges
from carray.search.request import StudyRequest
from carray.search.scheduling.driver import Driver
from carray.search.setup import StudySetup, open_ledger
from carray.search.space.loading import load_space
from carray.search.warm_start.first_trials import StartingPoints
from carray.tracking import SubprocessTracker, Tracker
from carray.training.epoch_order import EpochOutcome

LOGITS = {"val": np.zeros((100, 10), np.float16)}


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


class Desk:
    """Answers every order in the lanes' place; an actor of one event loop."""

    def __init__(self, epoch_seconds: float) -> None:
        self._seconds = epoch_seconds

    async def call(self, order: LaneOrder) -> Answer:
        """Wait as long as an epoch lasts; leave logits where a trial ends."""
        job = order.job
        assert job is not None
        if order.ends_trial:
            TrialFolder(Path(job.folder)).write_logits(LOGITS)
            return Answer()
        await asyncio.sleep(self._seconds)
        row = epoch_metrics(job.config, job.epoch, self._seconds)
        return Answer(
            outcome=EpochOutcome(row, True, "", 1_000_000, "random:0", compute=None, hardware=None),
            lane=0,
        )

    async def leave(self, trial: str) -> None:
        """Hold nothing."""


class StandIn:
    """What a driver needs of its lanes."""

    def __init__(self, num_lanes: int, epoch_seconds: float) -> None:
        self.num_lanes = num_lanes
        self.present = lambda: num_lanes
        actor = ray.remote(Desk).options(num_cpus=0, max_concurrency=10_000)
        self.mailbox = RayMailbox(actor.remote(epoch_seconds))

    def call(self, order: LaneOrder) -> Future[Answer]:
        """Send an order."""
        return self.mailbox.send(order)


@contextmanager
def study(
    folder: Path,
    trials: int,
    epochs: int,
    num_lanes: int,
    epoch_seconds: float,
    *more: Tracker,
) -> Iterator[tuple[Driver, StudyFolder]]:
    """Open a study under `folder` as `carray tune` does, its tracking included; `more` watch."""
    runs = RunsFolder.at(folder / "runs")
    files = runs.study("s")
    files.path.mkdir(parents=True)
    files.space_file.write_text(space_text(epochs))
    space = load_space(str(files.space_file))
    record = StudyRecord(
        name="s",
        trials=trials,
        max_epochs=epochs,
        sampler="tpe-univariate",
        manifest_hash="m",
        started_at=time.time(),
    )
    record.write(files.record_file)
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
    lanes: Any = StandIn(num_lanes, epoch_seconds)
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
        lanes.mailbox.end()
