"""What work leaves behind: `TrialRecord`, `StudyRecord`, and their folders in `RunsFolder`."""

from __future__ import annotations

from carray.records.folders import HELD_SPLITS, Logits, StudyFolder, TrialFolder
from carray.records.study_record import StudyRecord
from carray.records.trial_record import TrialRecord, TrialState

__all__ = [
    "HELD_SPLITS",
    "Logits",
    "StudyFolder",
    "StudyRecord",
    "TrialFolder",
    "TrialRecord",
    "TrialState",
]
