"""Which weights go to the tracking server: those of the best trials, and of ensembles' members."""

from __future__ import annotations

from collections.abc import Collection

from carray.errors import TrackingError
from carray.files import read_json
from carray.predictions.candidates import find_candidates, read_trials
from carray.records import StudyFolder
from carray.runs_folder import RunsFolder

BEST = 3  # as many as vote by default


def send_best_weights(
    runs: RunsFolder, folder: StudyFolder, besides: Collection[int] = ()
) -> tuple[int, str]:
    """Send weights to a tracking server; return how many trials' are there, and what went wrong."""
    from carray.tracking.weights import send_weights

    wanted = {*_best(folder), *_members(folder), *besides}
    try:
        return send_weights(runs, folder, sorted(wanted)), ""
    except TrackingError as error:
        return 0, f"weights aren't in the tracking store: {error}"


def _best(folder: StudyFolder) -> list[int]:
    found = find_candidates(folder.record(), read_trials(folder), need_weights=False)
    return [candidate.record.number for candidate in found.complete[:BEST]]


def _members(folder: StudyFolder) -> list[int]:
    results = [read_json(file) for file in folder.ensembles.glob("*.json")]
    trials = [row["trial"] for result in results for row in result["members"] if row["weight"] > 0]
    return [int(trial.rpartition("/")[2]) for trial in trials]
