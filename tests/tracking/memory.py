"""A tracker in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from carray.records import StudyRecord, TrialFolder, TrialRecord
from carray.tracking.tracker import TrialRun, run_of


class MemoryTracker:
    """A tracker that only remembers: the fake that passes the trackers' own contract."""

    def __init__(self) -> None:
        self.study: StudyRecord | None = None
        self.study_files: set[str] = set()
        self.runs: dict[int, TrialRun] = {}

    def study_started(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Remember the study."""
        self.study = study
        self.study_files |= {file.name for file in files if file.exists()}

    def trial_started(self, record: TrialRecord) -> None:
        """Remember the trial."""
        self.runs[record.number] = run_of(record)

    def epoch_ended(self, record: TrialRecord) -> None:
        """Remember the trial as it stands."""
        self.runs[record.number] = run_of(record)

    def trial_ended(self, record: TrialRecord, folder: TrialFolder) -> None:
        """Remember the trial as it ended."""
        self.runs[record.number] = run_of(record, folder)

    def study_ended(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Remember the study as it ended."""
        self.study_started(study, files)

    def close(self) -> None:
        """Nothing is waiting."""
