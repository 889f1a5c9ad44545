"""A tracker in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from carray.records import StudyRecord, TrialFolder, TrialRecord
from carray.tracking.tracker import TrialRun, curve_row, run_of


@dataclass(frozen=True)
class ShownRun(TrialRun):
    """All that one trial shows."""

    curves: tuple[Mapping[str, float], ...]
    files: tuple[str, ...] = ()


def shown_run(record: TrialRecord, folder: TrialFolder | None = None) -> ShownRun:
    """Return what a trial shows once it is all told."""
    run, epochs = run_of(record), range(1, len(record.epochs) + 1)
    files = (folder.record_file, folder.logits_file) if folder else ()
    curves = tuple(curve_row(record, epoch) for epoch in epochs)
    there = tuple(file.name for file in files if file.exists())
    return ShownRun(run.name, run.tags, run.params, curves, there)


class MemoryTracker:
    """A tracker that only remembers: the fake that passes the trackers' own contract."""

    def __init__(self) -> None:
        self.study: StudyRecord | None = None
        self.study_files: set[str] = set()
        self.runs: dict[int, ShownRun] = {}

    def study_started(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Remember the study."""
        self.study = study
        self.study_files |= {file.name for file in files if file.exists()}

    def trial_started(self, record: TrialRecord) -> None:
        """Remember the trial."""
        self.runs[record.number] = shown_run(record)

    def epoch_ended(self, record: TrialRecord) -> None:
        """Remember the trial as it stands."""
        self.runs[record.number] = shown_run(record)

    def trial_ended(self, record: TrialRecord, folder: TrialFolder) -> None:
        """Remember the trial as it ended."""
        self.runs[record.number] = shown_run(record, folder)

    def study_ended(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Remember the study as it ended."""
        self.study_started(study, files)

    def close(self) -> None:
        """Nothing is waiting."""
