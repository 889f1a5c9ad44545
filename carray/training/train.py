"""One trial outside a search: train it to the end, or go on where it was killed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from carray.config import TrialConfig
from carray.data.manifest import Manifest
from carray.data.pixels.known_boxes import boxes_note
from carray.data.pixels.own_transform import transform_note
from carray.disk import disk_error
from carray.errors import RESUMES, DiskError, RecordError, TrialFailed, TrialInfeasible
from carray.files import absolute, claimed, locked
from carray.models.classifier import check_backbone
from carray.models.recipes import complete_config
from carray.models.unread import unread_of
from carray.progress import silent
from carray.provenance import git_commit
from carray.records import (
    HELD_SPLITS,
    StudyFolder,
    StudyRecord,
    TrialFolder,
    TrialRecord,
    TrialState,
)
from carray.runs_folder import RunsFolder
from carray.training.dataset import open_data
from carray.training.epoch_order import EpochOrder
from carray.training.optimizer import check_optimizer
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner
from carray.training.stopping import stop_reason
from carray.training.teacher import check_teacher
from carray.training.trial_state import check_precision
from carray.typing import Progress

_logger = logging.getLogger(__name__)
PathLike = str | os.PathLike[str]
OnEpoch = Callable[[TrialRecord], None]
OnBatch = Callable[[int], None]


def default_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    data: PathLike,
    config: TrialConfig | Mapping[str, Any] | None = None,
    *,
    runs: PathLike | None = None,
    study: str = "single",
    weights: PathLike | None = None,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
    progress: Progress = silent,
) -> TrialRecord:
    """Train one configuration on a prepared data set, as the next trial of the folder `study`.

    A trial of the same configuration and data that was killed goes on where it stopped.

    Args:
        data: a folder made by `carray.prepare`.
        config: a `TrialConfig`, or dotted names and values; what they leave open is the backbone's
            known recipe (`carray.models.recipes`).
        runs: where studies live; `$CARRAY_RUNS`, else `./runs`.
        study: the folder among them that collects single trials.
        weights: a folder of pretrained weights, looked in before the hub.
        on_epoch: called with the record after every epoch.
        on_batch: called with the number of images after every batch.
        progress: shows how far the images are decoded, once for each image size.

    Returns:
        The trial's record; its `state` is complete, failed or infeasible.

    Raises:
        ConfigError, DataError, WeightsError: the trial can't start; nothing was written.
        RecordError: `study` is a search, or of another data set.
    """
    manifest = Manifest.load(data)
    chosen = complete_config(config, len(manifest.rows("train")))
    check_precision(chosen, default_device())
    check_optimizer(chosen.optimizer)
    check_backbone(chosen, len(manifest.classes), weights)
    check_teacher(chosen, manifest)
    transform_note(chosen.augment, chosen.image_size)
    for note in filter(None, [*unread_of(chosen), boxes_note(chosen.augment, manifest)]):
        _logger.warning(note)
    open_data(str(data), chosen, progress)
    folder = open_single_study(RunsFolder.at(runs), study, manifest)
    with claim_trial_number(folder, _unfinished(folder, chosen, manifest)) as number:
        return train_trial(
            chosen,
            manifest.folder,
            folder.trial(number).path,
            study=study,
            number=number,
            weights=weights,
            on_epoch=on_epoch,
            on_batch=on_batch,
        )


@dataclass(frozen=True)
class Trainer:
    """Trains configurations as single trials of one study, or finds them complete."""

    manifest: Manifest
    runs: RunsFolder
    study: str
    weights: PathLike | None = None
    on_epoch: OnEpoch | None = None
    on_batch: OnBatch | None = None
    progress: Progress = silent

    @property
    def folder(self) -> StudyFolder:
        """The study's."""
        return self.runs.study(self.study)

    def attempt(self, config: TrialConfig) -> TrialRecord:
        """Return the trial of this very configuration and data, complete or not.

        Raises:
            ConfigError, DataError, WeightsError, RecordError: as `train`.
        """
        for _, record in self.folder.trials():
            same = record.config == config and record.manifest_hash == self.manifest.hash
            if same and record.state is TrialState.COMPLETE:
                return record
        return train(
            self.manifest.where,
            config,
            runs=self.runs.path,
            study=self.study,
            weights=self.weights,
            on_epoch=self.on_epoch,
            on_batch=self.on_batch,
            progress=self.progress,
        )

    def trained(self, config: TrialConfig) -> TrialRecord:
        """Return the complete trial of this configuration.

        Raises:
            TrialFailed: it isn't complete.
            ConfigError, DataError, WeightsError, RecordError: as `train`.
        """
        record = self.attempt(config)
        if record.state is not TrialState.COMPLETE:
            raise TrialFailed(f"trial {record.name} {record.state}: {record.reason}")
        return record


def open_single_study(runs: RunsFolder, name: str, manifest: Manifest) -> StudyFolder:
    """Return the folder of single trials on one data set, made where it isn't there.

    Raises:
        RecordError: `name` can't be a folder, or is a search or of another data set.
    """
    if not name or set(name) & set('/\\:*?"<>|') or name.startswith("."):
        raise RecordError(f"--study {name!r} can't name a folder; use letters, digits, - and _")
    folder = runs.study(name)
    if folder.record_file.exists():
        _check_study(folder.record(), manifest)
        return folder
    folder.write_labels({split: manifest.labels[manifest.rows(split)] for split in HELD_SPLITS})
    StudyRecord(
        name=name,
        kind="single",
        data=manifest.where,
        cut=manifest.cut,
        manifest_hash=manifest.hash,
        classes=manifest.classes,
        metric=TrialConfig().best_metric,
        state="complete",
        started_at=time.time(),
        git_commit=git_commit(),
    ).write(folder.record_file)
    return folder


def _check_study(study: StudyRecord, manifest: Manifest) -> None:
    if study.kind != "single":
        raise RecordError(f"study {study.name!r} is a search; give --study another name")
    if study.manifest_hash != manifest.hash:
        raise RecordError(
            f"study {study.name!r} is of the data set {study.data} ({study.manifest_hash[:12]}), "
            f"not of {manifest.folder} ({manifest.hash[:12]}); give --study another name"
        )


@contextmanager
def claim_trial_number(study: StudyFolder, wanted: int | None = None) -> Iterator[int]:
    """Yield `wanted`, else the first number that no trial has; no other process takes it meanwhile.

    Raises:
        RecordError: another process trains the trial `wanted`.
    """
    with ExitStack() as held:
        with locked(study.path / "trials.lock"):
            first = max((record.number for record in study.records()), default=-1) + 1
            numbers = count(first) if wanted is None else [wanted]
            locks = ((each, study.trial(each).lock_file) for each in numbers)
            number = next((each for each, file in locks if held.enter_context(claimed(file))), None)
        if number is None:
            raise RecordError(
                f"trial {study.path.name}/{wanted:04d} of this configuration is being trained by "
                "another process: wait for it, or give --study or the seed another value"
            )
        yield number


def _unfinished(folder: StudyFolder, config: TrialConfig, manifest: Manifest) -> int | None:
    """Return the number of an unfinished trial of this configuration; None where there is none."""
    for record in folder.records():
        same = record.config == config and record.manifest_hash == manifest.hash
        if same and not record.state.is_finished():
            return record.number
    return None


def train_trial(
    config: TrialConfig,
    data: PathLike,
    folder: PathLike,
    *,
    number: int,
    study: str = "single",
    weights: PathLike | None = None,
    on_epoch: OnEpoch | None = None,
    on_batch: OnBatch | None = None,
) -> TrialRecord:
    """Run one trial to its end in `folder`, from where its record and checkpoint stand.

    Returns:
        The record; a failed or infeasible trial has the reason in it and raises nothing.

    Raises:
        DiskError: a disk is full; the trial is left to be gone on with.
    """
    trial = _Trial(TrialFolder(Path(folder).resolve()))
    record = trial.opened(config, Path(data), study, number)
    if record.state.is_finished():
        return record
    runner = TrialRunner(SoloRanks(), default_device(), on_batch=on_batch)
    order = EpochOrder(
        trial=record.name,
        folder=str(trial.folder.path),
        data=str(Path(data).resolve()),
        config=config,
        epoch=1,
        weights=absolute(weights),
    )
    try:
        record = trial.run(runner, order, record, on_epoch)
    except TrialInfeasible as error:
        record = trial.ended(record, TrialState.INFEASIBLE, str(error))
    except TrialFailed as error:
        record = trial.ended(record, TrialState.FAILED, str(error))
    except Exception as error:
        if full := disk_error(error, order.folder, order.data):
            raise DiskError(f"{full}; {RESUMES}") from error
        raise
    finally:
        runner.release()
    return record


@dataclass(frozen=True)
class _Trial:
    """A trial's folder and record."""

    folder: TrialFolder

    def opened(self, config: TrialConfig, data: Path, study: str, number: int) -> TrialRecord:
        """Return the stored record of this very trial, else a new one.

        Raises:
            RecordError: the folder holds another configuration's trial.
        """
        if self.folder.record_file.exists():
            record = self.folder.record()
            if record.config != config:
                raise RecordError(
                    f"{self.folder.path} holds a trial of another configuration; "
                    "give another folder or number"
                )
            return record
        manifest_hash = Manifest.load(data).hash
        return self._written(TrialRecord.begin(study, number, config, manifest_hash, kind="single"))

    def run(
        self,
        runner: TrialRunner,
        order: EpochOrder,
        record: TrialRecord,
        on_epoch: OnEpoch | None,
    ) -> TrialRecord:
        """Run the epochs that are left, then finish."""
        has_checkpoint = self.folder.checkpoint.exists()
        if self.folder.logits_file.exists() and not has_checkpoint:
            # it was finished, and killed before its record said so
            reason, state = stop_reason(record.epochs, order.config)
            return self.ended(record, TrialState(state), reason)
        done = len(record.epochs) if has_checkpoint else 0
        record = record.model_copy(update={"epochs": record.epochs[:done]})
        for epoch in range(max(1, done), order.config.epochs + 1):  # `done` says if it was the end
            outcome = runner.run_epoch(order.model_copy(update={"epoch": epoch}))
            if epoch > done:
                rows = (*record.epochs, outcome.metrics)
                facts = {"epochs": rows, **outcome.facts()}
                record = self._written(record.model_copy(update=facts))
                if on_epoch:
                    on_epoch(record)
            if outcome.stop:
                break
        runner.finish(order)
        return self.ended(record, TrialState(outcome.ending), outcome.stop)

    def ended(self, record: TrialRecord, state: TrialState, reason: str) -> TrialRecord:
        """Write how the trial ended."""
        changes = {"state": state, "reason": reason, "ended_at": time.time()}
        return self._written(record.model_copy(update=changes))

    def _written(self, record: TrialRecord) -> TrialRecord:
        self.folder.write_record(record)
        return record
