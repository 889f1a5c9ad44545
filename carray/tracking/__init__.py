"""The one door to experiment tracking: nothing else imports mlflow, and it is imported late.

One process writes for a study: its driver's `SubprocessTracker`, which starts while the driver does
something else, and whose calls never block the search. `open_tracker` gives a tracker in the
process itself. The records on disk stay the truth, and `sync_study` sends them again.
"""

from __future__ import annotations

from carray.tracking.mlflow_client import check_server, tracking_uri
from carray.tracking.models import log_package, serve
from carray.tracking.subprocess_tracker import SubprocessTracker
from carray.tracking.sync import download_study, open_tracker, sync_study
from carray.tracking.tracker import Tracker, TrialRun
from carray.tracking.ui import open_ui

__all__ = [
    "SubprocessTracker",
    "Tracker",
    "TrialRun",
    "check_server",
    "download_study",
    "log_package",
    "open_tracker",
    "open_ui",
    "serve",
    "sync_study",
    "tracking_uri",
]
