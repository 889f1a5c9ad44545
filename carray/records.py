"""What work leaves behind: `TrialRecord`, `StudyRecord`, and their folders in `RunsFolder`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, computed_field

from carray import metrics
from carray.config import Compute, Hardware, TrialConfig
from carray.costs import BUDGET_SPENT, Cost, Held
from carray.errors import RecordError
from carray.files import add_json_line, claimed, is_held, read_array, read_json_lines, write_npz
from carray.json_file import JsonFile
from carray.masking import MaskedText
from carray.provenance import git_commit, versions_for

RECORD_VERSION = 1
Logits = npt.NDArray[np.float16]  # (images, classes), rows in the manifest's order of the split
HELD_SPLITS = ("val", "blend", "test")  # the splits that a trial leaves logits on


class TrialState(StrEnum):
    """How a trial stands; only `running` is not an end."""

    RUNNING = "running"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"
    INFEASIBLE = "infeasible"
    COLLAPSED = "collapsed"

    def is_finished(self) -> bool:
        """Say whether the trial has ended."""
        return self is not TrialState.RUNNING


class TrialRecord(JsonFile):
    """One trial: what was asked, what happened, what it left."""

    version: int = RECORD_VERSION
    cure: ClassVar[str] = "move its folder away, and the study goes on without that trial"
    study: str
    number: int
    kind: Literal["search", "refit", "fold", "single"] = "search"
    state: TrialState = TrialState.RUNNING
    reason: MaskedText = ""
    """Why it ended so: the stop's rule, the error's sentence."""
    params: dict[str, Any] = Field(default_factory=dict)
    """What was drawn for this trial, dotted names; the whole is in `config`."""
    config: TrialConfig
    epochs: tuple[dict[str, float], ...] = ()
    """One row a finished epoch, from the first; names of `carray.metrics`."""
    refit_of: int | None = None
    continued_epochs: int = 0
    """The first ones, taken over with their checkpoint from the trial that it is a refit of."""
    fold_of: int | None = None
    """The trial whose configuration this one trained on the fold `config.fold`."""
    soup_of: tuple[str, ...] = ()
    """The trials whose weights were averaged, as `STUDY/0007`; (): it was trained."""
    network_cost: dict[str, float] = Field(default_factory=dict)
    """Of the study's objectives, those of its network: `latency` in ms, `size` in MB."""
    sampler_number: int | None = None  # the trial's in Optuna's study
    is_given: bool = False
    """Whether its study was given it to try first, as a known recipe is; False before 0.2."""
    manifest_hash: str = ""
    initialisation: str = ""  # what the weights started from; soups need members that share it
    parameters: int | None = None  # how many the classifier has
    compute: Compute | None = None
    """How its steps were computed; None before the first epoch."""
    hardware: Hardware | None = None
    """What computed them; None before the first epoch, and in records of before 0.2."""
    held: Held | None = None
    """What its lane held; None where no lane trained it, or an older version."""
    started_at: float | None = None  # Unix time, seconds
    ended_at: float | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    git_commit: str = ""

    @classmethod
    def begin(
        cls, study: str, number: int, config: TrialConfig, manifest_hash: str, **fields: Any
    ) -> Self:
        """Return the record of a trial that begins now, by the code and packages at work."""
        now = {"started_at": time.time(), "git_commit": git_commit()}
        known = {"study": study, "number": number, "config": config, "manifest_hash": manifest_hash}
        return cls(**{**known, **now, "versions": versions_for(config), **fields})

    @property
    def name(self) -> str:
        """`STUDY/0007`, as the command line takes it."""
        return f"{self.study}/{self.number:04d}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def cost(self) -> Cost | None:
        """What its epochs cost; written for readers of the file."""
        joules, ranks = self._summed(metrics.ENERGY_JOULES), getattr(self.hardware, "ranks", 1)
        return self.held.cost(self.trained_seconds, joules, ranks) if self.held else None

    @property
    def refit_text(self) -> str:
        """Say of a refit what it is: trained anew, or gone on with; "" of any other trial."""
        if self.refit_of is None:
            return ""
        if self.continued_epochs:
            return f"trial {self.refit_of:04d}, continued after epoch {self.continued_epochs}"
        return f"a refit of trial {self.refit_of:04d}"

    @property
    def trained_seconds(self) -> float:
        """Seconds that its own epochs took."""
        return self._summed(metrics.EPOCH_SECONDS)

    def _summed(self, name: str) -> float:
        return sum(row.get(name, 0.0) for row in self.epochs[self.continued_epochs :])

    @property
    def can_be_continued(self) -> bool:
        """Say whether its training came to the end of its schedule, and to no other before."""
        is_whole = len(self.epochs) == self.config.epochs and not self.config.schedule.restart_after
        return self.kind == "search" and self.state is TrialState.COMPLETE and is_whole

    @property
    def best_epoch(self) -> int | None:
        """The 1-based epoch whose weights and logits are kept."""
        return metrics.best_epoch(self.epochs, self.config.best_metric)

    def best(self, metric: str) -> float:
        """Return `metric` at the best epoch; NaN if no epoch ended or the metric is unknown."""
        epoch = self.best_epoch
        return math.nan if epoch is None else self.epochs[epoch - 1].get(metric, math.nan)


class StudyRecord(JsonFile):
    """One study: the question, the data, the budget; what resumes it."""

    version: int = RECORD_VERSION
    cure: ClassVar[str] = "move it away, and the study's own `carray tune` writes it anew"
    name: str
    kind: Literal["search", "single"] = "search"
    data: str = ""
    """Absolute path of the prepared data set, or its URL."""
    cut: dict[str, Any] = Field(default_factory=dict)
    """How its images were cut and classes merged, for packages; {} in records of before 0.2."""
    manifest_hash: str = ""
    classes: tuple[str, ...] = ()
    metric: str = metrics.VAL_LOG_LOSS
    objectives: tuple[str, ...] = ()
    """Where there are several: the metric, then costs of `TrialRecord.network_cost`."""
    space_file: str = ""
    space_hash: str = ""
    sampler: str = "tpe"
    scheduler: str = "asha"
    storage: str = ""
    """URL of Optuna's storage without its password; "" where it is `optuna.db`."""
    trials: int = 0
    """Trials asked for, all calls together."""
    max_epochs: int = 0
    extended_from: int | None = None
    """`max_epochs` before a later call asked for more; None where none has."""
    seed: int = 0
    recipe: bool = False
    """Whether what the space leaves open is a backbone's known recipe; else `TrialConfig`'s."""
    state: Literal["running", "complete", "interrupted", "failed"] = "running"
    budget_spent: bool = False
    """Whether the last call ended because its budget was spent, with trials left."""
    command: MaskedText = ""
    """The last call's command line, which goes on where that ended; "" of a call from Python."""
    cost: Cost | None = None
    """What all calls have held, from the start of their lanes to the end."""
    started_at: float = 0.0
    ended_at: float | None = None
    seconds: float | None = None
    """Of its calls, without the time between; None before the first has ended, and before 0.2."""
    git_commit: str = ""
    tracking: dict[str, str] = Field(default_factory=dict)
    """The tracking server's own ids of this study."""

    @property
    def standing(self) -> str:
        """How it stands, in words: its state, or that its budget is spent."""
        return BUDGET_SPENT if self.budget_spent and self.state == "complete" else self.state

    @property
    def objective(self) -> metrics.Objective:
        """What its trials are compared by."""
        return metrics.Objective(self.metric)

    @property
    def worked_seconds(self) -> float | None:
        """How long it was worked on; of an old record, from its start to its end; None unknown."""
        if self.seconds is not None or not (self.ended_at and self.started_at):
            return self.seconds
        return self.ended_at - self.started_at

    @computed_field  # type: ignore[prop-decorator]
    @property
    def direction(self) -> str:
        """`minimize` or `maximize`, as the metric wants; written for readers of the file."""
        return self.objective.direction


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
        return self.path / "views" / f"{view}-{split}.npy"

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
