"""What everyone keeps who is told of a study: trackers, boards and gauges."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from carray.records import StudyFolder, TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.search.observers.console import Board, JsonBoard, LiveBoard
from carray.search.observers.prometheus import TRIALS, StudyGauges
from carray.tracking import SubprocessTracker, Tracker, TrialRun
from tests.search.gauges import Values, shown
from tests.tracking.memory import MemoryTracker
from tests.tracking.studies import end_trial, make_record, make_study
from tests.tracking.test_tracker import read_mlflow, runs

__all__ = ["runs", "shown"]
States = Callable[[], Counter[str]]  # of each state, how many trials are shown in it
LIGHT = ("memory", "lines", "json", "table", "gauges")
ENDINGS = {
    0: TrialState.COMPLETE,
    1: TrialState.FAILED,
    2: TrialState.PRUNED,
    3: TrialState.INFEASIBLE,
    4: TrialState.COLLAPSED,
    5: TrialState.COMPLETE,
    6: TrialState.COMPLETE,
}
WITHOUT_AN_EPOCH = 3
OF_AN_EARLIER_CALL = 2
KINDS = {5: {"kind": "refit", "refit_of": 0}, 6: {"kind": "fold", "fold_of": 0}}


@pytest.fixture
def observed(
    request: pytest.FixtureRequest, runs: RunsFolder, shown: Values
) -> tuple[Tracker, States]:
    """An observer, and what it shows."""
    folder = make_study(runs)
    if request.param == "memory":
        memory = MemoryTracker()
        return memory, lambda: tagged(memory.runs)
    if request.param == "apart":
        return SubprocessTracker(runs, pytest.fail), lambda: tagged(read_mlflow(runs))
    if request.param == "gauges":
        return StudyGauges(folder.record()), lambda: counted(shown)
    stream = io.StringIO()
    if request.param == "table":
        table = LiveBoard(stream)
        return table, lambda: Counter(row.split()[1] for row in table.render().splitlines()[2:])
    kind = Board if request.param == "lines" else JsonBoard
    read = read_lines if request.param == "lines" else read_json
    return kind(stream), lambda: Counter(read(stream.getvalue()).values())


def tagged(runs: Mapping[int, TrialRun]) -> Counter[str]:
    return Counter(run.tags["carray.state"] for run in runs.values())


def counted(shown: Values) -> Counter[str]:
    return Counter({state: int(count) for (state,), count in shown[TRIALS].items() if count})


def read_lines(text: str) -> dict[str, str]:
    return dict(re.findall(r"(?:trial|refit|fold) (\d{4}) is (\w+)", text))


def read_json(text: str) -> dict[str, str]:
    events = [json.loads(line) for line in text.splitlines()]
    return {e["trial"]: e["state"] for e in events if e["event"] == "trial_ended"}


def record_of(number: int, epochs: int, state: TrialState = TrialState.RUNNING) -> TrialRecord:
    return make_record(number, epochs, state).model_copy(update=KINDS.get(number, {}))


def tell(observer: Tracker, folder: StudyFolder) -> None:
    """Tell of a study as its driver does; one trial had ended before."""
    study = folder.record()
    observer.study_started(study, (folder.space_file, folder.labels_file))
    for number, state in ENDINGS.items():
        epochs = 0 if number == WITHOUT_AN_EPOCH else 2
        if number != OF_AN_EARLIER_CALL:
            observer.trial_started(record_of(number, 0))
            for epoch in range(1, epochs + 1):
                observer.epoch_ended(record_of(number, epoch))
        ended = record_of(number, epochs, state)
        end_trial(folder, ended)
        observer.trial_ended(ended, folder.trial(number))
    ended_study = study.model_copy(update={"state": "interrupted", "ended_at": 1200.0})
    observer.study_ended(ended_study, (folder.record_file,))


def expected(observer: Tracker) -> Counter[str]:
    states = Counter(str(state) for state in ENDINGS.values())
    if isinstance(observer, LiveBoard):  # whose rows are ranked, and it has nothing to rank by
        states -= Counter([str(ENDINGS[WITHOUT_AN_EPOCH])])
    return states


@pytest.mark.parametrize("observed", [*LIGHT, "apart"], indirect=True)
def test_every_trial_is_shown_as_it_ended(
    observed: tuple[Tracker, States], runs: RunsFolder
) -> None:
    observer, states = observed
    tell(observer, runs.study("autumn"))
    observer.close()
    assert states() == expected(observer)


@pytest.mark.parametrize("observed", LIGHT, indirect=True)
def test_a_study_told_twice_shows_each_trial_once(
    observed: tuple[Tracker, States], runs: RunsFolder
) -> None:
    observer, states = observed
    for _call in range(2):
        tell(observer, runs.study("autumn"))
    observer.close()
    assert states() == expected(observer)


@pytest.mark.parametrize("observed", LIGHT, indirect=True)
def test_a_trial_that_runs_is_not_shown_as_ended(
    observed: tuple[Tracker, States], runs: RunsFolder
) -> None:
    observer, states = observed
    observer.study_started(runs.study("autumn").record())
    observer.trial_started(record_of(0, 0))
    observer.epoch_ended(record_of(0, 1))
    shown = states()
    observer.close()
    assert set(shown) <= {"running"}


@pytest.mark.parametrize("observed", LIGHT, indirect=True)
def test_it_is_closed_in_the_middle_of_a_study_and_again(
    observed: tuple[Tracker, States], runs: RunsFolder
) -> None:
    """As where a study is interrupted before it has begun."""
    observer, states = observed
    observer.close()
    observer.study_started(runs.study("autumn").record())
    observer.trial_started(record_of(0, 0))
    observer.close()
    observer.close()
    assert set(states()) <= {"running"}
