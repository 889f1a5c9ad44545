"""A recorded trial run again, to see whether its scores agree."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from carray import metrics
from carray.data.manifest import Manifest
from carray.errors import RecordError
from carray.files import absolute
from carray.models.fitted_heads import check_trained_by_steps
from carray.provenance import git_commit, versions
from carray.records import RunsFolder, StudyFolder, TrialFolder, TrialRecord
from carray.training.epoch_order import EpochOrder
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner
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
    on_epoch: Callable[[int, Mapping[str, float]], None] | None = None,
    on_batch: OnBatch | None = None,
) -> Reproduction:
    """Run the first `epochs` of a recorded trial again, aside, and compare.

    Args:
        trial: `STUDY/NUMBER` or a trial's folder.
        data: the prepared data set, where it has moved.
        weights: a folder of pretrained weights, looked in before the hub.

    Raises:
        ConfigError: it was fitted, not trained by steps.
        RecordError: there is no such trial, it has no epochs, or its data set is another now.
    """
    folder = RunsFolder.at(runs).find_trial(trial)
    record = folder.record()
    check_trained_by_steps(record.config.head)
    count = min(epochs, len(record.epochs))
    if count < 1:
        raise RecordError(f"trial {record.name} has no finished epoch to compare with")
    source = _data_of(folder, record, data)
    rows: list[dict[str, float]] = []
    runner = TrialRunner(SoloRanks(), default_device(), on_batch=on_batch)
    with tempfile.TemporaryDirectory(prefix="carray-replay-") as aside:
        for epoch in range(1, count + 1):
            order = EpochOrder(
                trial=record.name,
                folder=aside,
                data=str(source),
                config=record.config,
                epoch=epoch,
                compute=record.compute,
                weights=absolute(weights),
            )
            rows.append(runner.run_epoch(order).metrics)
            if on_epoch:
                on_epoch(epoch, rows[-1])
    runner.release()
    return Reproduction(record, tuple(rows), _changes_since(record))


def _data_of(folder: TrialFolder, record: TrialRecord, data: PathLike | None) -> Path:
    """Return the data set's folder, checked to be the one that the trial saw."""
    known = StudyFolder(folder.path.parent.parent)
    if data is None and known.record_file.exists():
        data = known.record().data
    if data is None:
        raise RecordError(f"trial {record.name} doesn't say where its data are; give --data DIR")
    found = Manifest.load(Path(data)).hash
    if found != record.manifest_hash:
        raise RecordError(
            f"{data} is data set {found[:12]}, but trial {record.name} was trained on "
            f"{record.manifest_hash[:12]}; give the right one with --data DIR"
        )
    return Path(data)


def _changes_since(record: TrialRecord) -> tuple[str, ...]:
    now = versions()
    changed = [
        f"{package} {then} then, {now.get(package, 'missing')} now"
        for package, then in record.versions.items()
        if now.get(package) != then
    ]
    if record.git_commit != git_commit():
        changed.append("the code has changed since")
    return tuple(changed)
