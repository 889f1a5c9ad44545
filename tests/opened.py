"""What a test opens is closed when the test has ended; Optuna's storage is read and closed."""

from __future__ import annotations

from contextlib import ExitStack, closing

from optuna import load_study
from optuna.trial import FrozenTrial

from carray.records import StudyFolder
from carray.search.sampling.storage import Database

OPENED = ExitStack()
"""Of the test that runs; a fixture closes it."""


def stored_trials(folder: StudyFolder) -> list[FrozenTrial]:
    """Return what the storage holds, whatever a ledger's process knows."""
    with closing(Database(f"sqlite:///{folder.optuna_file}")) as storage:
        trials: list[FrozenTrial] = load_study(study_name=folder.path.name, storage=storage).trials
        return trials
