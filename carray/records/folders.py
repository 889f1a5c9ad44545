"""`TrialFolder`, `StudyFolder`: the only classes that know the names of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carray.errors import RecordError
from carray.files import (
    add_json_line,
    claimed,
    is_held,
    read_array,
    read_json_lines,
    remove,
    write_npz,
)
from carray.records.study_record import StudyRecord
from carray.records.trial_record import TrialRecord

Logits = npt.NDArray[np.float16]  # (images, classes), rows in the manifest's order of the split
HELD_SPLITS = ("val", "blend", "test")  # the splits that a trial leaves logits on


@dataclass(frozen=True)
class TrialFolder:
    """The only class that knows the names of a trial's files."""

    path: Path

    @property
    def record_file(self) -> Path:
        """Typed JSON; of a trial that runs, all but the epochs of `epochs_file`."""
        return self.path / "record.json"

    @property
    def lock_file(self) -> Path:
        """Held by the process that trains it, where no study's driver has that trained."""
        return self.record_file.with_suffix(".lock")

    @property
    def epochs_file(self) -> Path:
        """A line of JSON an epoch that `record_file` doesn't hold yet; gone once the trial ends."""
        return self.path / "epochs.jsonl"

    @property
    def logits_file(self) -> Path:
        """Float16 logits of the best epoch on `HELD_SPLITS`; never deleted."""
        return self.path / "logits.npz"

    def view_file(self, view: str, split: str) -> Path:
        """Float16 logits of the best epoch on a held split, seen through a test-time view."""
        return self._views / f"{view}-{split}.npy"

    @property
    def _views(self) -> Path:
        return self.path / "views"

    @property
    def checkpoint(self) -> Path:
        """Folder with what the next epoch needs; gone once the trial ends, unless it can go on."""
        return self.path / "checkpoint"

    @property
    def weights_file(self) -> Path:
        """The best epoch's weights; kept under the disk budget."""
        return self.path / "best.safetensors"

    @property
    def probe_file(self) -> Path:
        """How fast which way of computing was: its study's, its own where it is in none."""
        in_study = self.path.parent.name == "trials"
        return StudyFolder(self.path.parents[1] if in_study else self.path).probe_file

    def record(self) -> TrialRecord:
        """Read the record, with the epochs that were added to it."""
        record = TrialRecord.read(self.record_file)
        epochs = list(record.epochs)
        for epoch, row in read_json_lines(self.epochs_file):
            if epoch == len(epochs) + 1:
                epochs.append(row)
        return record.model_copy(update={"epochs": tuple(epochs)})

    def write_record(self, record: TrialRecord) -> None:
        """Write the record aside, then rename; what was added to the one before is in it."""
        record.write(self.record_file)
        self.epochs_file.unlink(missing_ok=True)

    def add_epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """Add 1-based `epoch` to a record that this process wrote, as a line."""
        add_json_line(self.epochs_file, (epoch, row))

    def write_logits(self, logits: dict[str, npt.NDArray[Any]]) -> None:
        """Write {split: (images, classes)} as float16."""
        write_npz(self.logits_file, {name: np.asarray(v, np.float16) for name, v in logits.items()})

    def remove_logits(self) -> None:
        """Remove what it says of images, before its best weights change."""
        self.logits_file.unlink(missing_ok=True)
        remove(self._views)

    def logits(self, split: str) -> Logits:
        """Read the float16 logits on `split`, (images, classes); raises RecordError without any."""
        found = read_array(self.logits_file, split)
        if found is None:
            raise RecordError(f"{self.path} has no logits on {split!r}")
        return np.asarray(found, np.float16)


@dataclass(frozen=True)
class StudyFolder:
    """The only class that knows the names of a study's files."""

    path: Path

    @property
    def record_file(self) -> Path:
        """The study's own record."""
        return self.path / "study.json"

    @property
    def space_file(self) -> Path:
        """A copy of the search space as it was read."""
        return self.path / "space.yaml"

    @property
    def optuna_file(self) -> Path:
        """The default Optuna storage, sqlite."""
        return self.path / "optuna.db"

    @property
    def probe_file(self) -> Path:
        """How fast which way of computing a step was."""
        return self.path / "probe.json"

    @property
    def cache(self) -> Path:
        """Tune's and Train's own files, which nobody reads; gone with the call that made them."""
        return self.path / "tune"

    @property
    def ensembles(self) -> Path:
        """What each ensemble of this study was worth, one JSON file each."""
        return self.path / "ensembles"

    @property
    def costs_file(self) -> Path:
        """What its networks cost on a machine, where that was measured."""
        return self.path / "costs.json"

    @property
    def front_file(self) -> Path:
        """Its trials that none beats in all objectives, where it has several."""
        return self.path / "front.json"

    @property
    def labels_file(self) -> Path:
        """Class indices of the images of `HELD_SPLITS`: ensembling needs no image."""
        return self.path / "labels.npz"

    def record(self) -> StudyRecord:
        """Read the study's record."""
        return StudyRecord.read(self.record_file)

    @property
    def driver_lock(self) -> Path:
        """Held by the process that adds trials."""
        return self.path / "driver.lock"

    def state(self) -> str:
        """Return how it stands now: a killed process's record says `running`, its lock doesn't."""
        record = self.record()
        locks = [self.driver_lock] if record.state == "running" else []
        if record.kind == "single":
            locks = [each.lock_file for each, own in self.trials() if not own.state.is_finished()]
        standing = "running" if any(map(is_held, locks)) else "interrupted"
        return standing if locks else record.state

    def write_labels(self, labels: dict[str, npt.NDArray[np.int64]]) -> None:
        """Write {split: class index of each image}, in the manifest's order of the split."""
        write_npz(self.labels_file, labels)

    def labels(self, split: str) -> npt.NDArray[np.int64]:
        """Read each image's class index on `split`, () without such; raises RecordError if lost."""
        if not self.labels_file.exists():
            raise RecordError(f"{self.path} has no labels.npz")
        found = read_array(self.labels_file, split)
        return np.asarray(() if found is None else found, np.int64)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the study against any other process that adds trials.

        Raises:
            RecordError: one holds it already.
        """
        with claimed(self.driver_lock) as is_ours:
            if not is_ours:
                raise RecordError(
                    f"study {self.path.name!r} is being run by another process; wait for it, or "
                    "name another study with --study"
                )
            yield

    def trial(self, number: int) -> TrialFolder:
        """Return the folder of trial `number`, there or not."""
        return TrialFolder(self.path / "trials" / f"{number:04d}")

    def trial_folders(self) -> list[TrialFolder]:
        """Return the folder of every trial with a record, by number."""
        files = (self.path / "trials").glob("[0-9]*/record.json")
        return [TrialFolder(file.parent) for file in sorted(files)]

    def trials(self) -> Iterator[tuple[TrialFolder, TrialRecord]]:
        """Yield every trial with a record, by number; raises RecordError where one is broken."""
        for folder in self.trial_folders():
            yield folder, folder.record()

    def records(self) -> list[TrialRecord]:
        """Return every record of a trial, by number."""
        return [record for _, record in self.trials()]
