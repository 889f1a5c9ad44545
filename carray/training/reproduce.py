"""A recorded trial run again, to see whether its scores agree."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from carray import metrics
from carray.config import CLASSICAL_HEADS, Hardware
from carray.data.manifest import Manifest, check_still_there
from carray.errors import ConfigError, RecordError, counted
from carray.files import absolute
from carray.provenance import git_commit, versions_for
from carray.records import StudyFolder, TrialFolder, TrialRecord
from carray.runs_folder import RunsFolder
from carray.training.epoch_order import EpochOrder
from carray.training.rank_processes import run_on_ranks
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner, hardware_of
from carray.training.train import OnBatch, PathLike, default_device

AGREES_WITHIN = 1e-4
REPLAYED = (
    metrics.TRAIN_LOSS,
    metrics.VAL_LOG_LOSS,
    metrics.VAL_TOP1,
    metrics.VAL_TOP5,
    metrics.VAL_MACRO_F1,
    metrics.LR,
)


@dataclass(frozen=True)
class Reproduction:
    """A recorded trial, run again for its first epochs."""

    record: TrialRecord
    epochs: tuple[dict[str, float], ...]
    """What the run again brought."""
    notes: tuple[str, ...]
    """What differs between then and now that may explain a difference."""

    @property
    def differences(self) -> dict[str, float]:
        """Return {metric: largest absolute difference over the epochs}."""
        pairs = list(zip(self.record.epochs, self.epochs, strict=False))
        return {
            name: max((abs(a.get(name, math.nan) - b[name]) for a, b in pairs), default=math.nan)
            for name in REPLAYED
        }

    @property
    def agrees(self) -> bool:
        """Say whether every score agrees to `AGREES_WITHIN`."""
        return all(difference <= AGREES_WITHIN for difference in self.differences.values())


def reproduce(
    trial: str,
    *,
    runs: PathLike | None = None,
    data: PathLike | None = None,
    weights: PathLike | None = None,
    epochs: int = 1,
    on_start: Callable[[Sequence[str]], None] | None = None,
    on_epoch: Callable[[int, Mapping[str, float]], None] | None = None,
    on_batch: OnBatch | None = None,
) -> Reproduction:
    """Run the first `epochs` of a recorded trial again, aside, and compare.

    Args:
        trial: `STUDY/NUMBER` or a trial's folder.
        data: the prepared data set, where it has moved.
        weights: a folder of pretrained weights, looked in before the hub.
        epochs: how many, at most all that there are.
        on_start: told before the first epoch what differs between then and now.
        on_epoch: called with the number and the metrics of an epoch.
        on_batch: called with the number of images after every batch; on one rank only.

    Raises:
        ConfigError: it was fitted, not trained by steps.
        RecordError: there is no such trial, it has no epochs, or its data set is another now.
    """
    folder = RunsFolder.at(runs).find_trial(trial)
    record = folder.record()
    if (kind := record.config.head.kind) in CLASSICAL_HEADS:
        raise ConfigError(
            f"trial {record.name} can't be replayed, since its {kind} was fitted and not trained "
            f"by steps: `carray train DIR --classifier {kind} --features-of "
            f"{record.params.get('features_of', 'STUDY/NUMBER')}` fits another"
        )
    if record.soup_of:
        raise RecordError(
            f"trial {record.name} wasn't trained: it is the mean of {', '.join(record.soup_of)}, "
            "which can be replayed one by one"
        )
    count = min(epochs, len(record.epochs))
    if count < 1:
        raise RecordError(f"trial {record.name} has no finished epoch to compare with")
    source = _data_of(folder, record, data)
    device = default_device()
    hardware, lacking = attainable_hardware(record.hardware, device)
    notes = (*_taken_over(record), *lacking, *_changes_since(record))
    if on_start:
        on_start(notes)
    with tempfile.TemporaryDirectory(prefix="carray-replay-") as aside:
        orders = [
            EpochOrder(
                trial=record.name,
                folder=str(Path(aside) / "trial"),
                data=source,
                config=record.config,
                epoch=epoch,
                compute=record.compute,
                weights=absolute(weights),
            )
            for epoch in range(1, count + 1)
        ]
        if hardware.ranks > 1:
            rows = run_on_ranks(orders, hardware.ranks, hardware.threads, device, Path(aside))
        else:
            rows = _run_here(orders, hardware.threads, device, on_batch)
    for epoch, row in enumerate(rows, start=1):
        if on_epoch:
            on_epoch(epoch, row)
    return Reproduction(record, tuple(rows), notes)


def _run_here(
    orders: Sequence[EpochOrder], threads: int, device: torch.device, on_batch: OnBatch | None
) -> list[dict[str, float]]:
    """Carry the orders out in this process, and give torch its own number of threads back."""
    before = torch.get_num_threads()
    try:
        runner = TrialRunner(SoloRanks(), device, threads, on_batch=on_batch)
        rows = [runner.run_epoch(order).metrics for order in orders]
        runner.release()
        return rows
    finally:
        torch.set_num_threads(before)


def attainable_hardware(
    then: Hardware | None, device: torch.device
) -> tuple[Hardware, tuple[str, ...]]:
    """Return what a trial is run again on, and what of `then` can't be had here.

    Threads and ranks can be had anywhere, ranks of GPUs where there are as many GPUs.
    """
    now = hardware_of(device)
    if then is None:
        unknown = "its record doesn't say on how many threads and ranks it ran: they may differ"
        return now, (unknown,)
    lacking = []
    if then.device != now.device:
        lacking.append(f"device: {then.device} then, {now.device} now")
    ranks = then.ranks
    gpus = torch.cuda.device_count() if device.type == "cuda" else ranks
    if gpus < ranks:
        lacking.append(f"ranks: {ranks} then, 1 now: {counted(gpus, 'GPU')} here")
        ranks = 1
    return now.model_copy(update={"threads": then.threads, "ranks": ranks}), tuple(lacking)


def _data_of(folder: TrialFolder, record: TrialRecord, data: PathLike | None) -> str:
    """Return the data set's folder or URL, checked to be the one that the trial saw."""
    known = StudyFolder(folder.path.parent.parent)
    if data is None and known.record_file.exists():
        data = known.record().data
    if data is None:
        raise RecordError(f"trial {record.name} doesn't say where its data are; give --data DIR")
    check_still_there(data, f"trial {record.name}")
    where = os.fspath(data)
    found = Manifest.load(where).hash
    if found != record.manifest_hash:
        raise RecordError(
            f"{data} is data set {found[:12]}, but trial {record.name} was trained on "
            f"{record.manifest_hash[:12]}; give the right one with --data DIR"
        )
    return where


def _taken_over(record: TrialRecord) -> tuple[str, ...]:
    """Say what was not trained for this record; its configuration has that training too."""
    if not record.continued_epochs:
        return ()
    return (f"it is {record.refit_text}; here its first epochs are trained too",)


def _changes_since(record: TrialRecord) -> tuple[str, ...]:
    now = versions_for(record.config)
    changed = [
        f"{package} {then} then, {now.get(package, 'missing')} now"
        for package, then in record.versions.items()
        if now.get(package) != then
    ]
    if record.git_commit != git_commit():
        changed.append("the code has changed since")
    return tuple(changed)
