"""The one door to experiment tracking: nothing else imports mlflow, and it is imported late.

One process writes: the driver of a study. `open_tracker` gives it a `Tracker`, whose calls never
block the search; the records on disk stay the truth, and `sync_study` sends them again.
"""

from __future__ import annotations

from carray.tracking.contract import MemoryTracker, Tracker, TrialRun
from carray.tracking.door import check, tracking_uri
from carray.tracking.mirror import download_study, open_tracker, sync_study
from carray.tracking.models import log_package, serve
from carray.tracking.ui import open_ui

__all__ = [
    "MemoryTracker",
    "Tracker",
    "TrialRun",
    "check",
    "download_study",
    "log_package",
    "open_tracker",
    "open_ui",
    "serve",
    "sync_study",
    "tracking_uri",
]
