"""What a running study says that further trials are worth, and when it opens no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from carray.costs import SMALL_GAIN
from carray.errors import ConfigError
from carray.records import TrialState
from carray.search.request import Goal, check_numbers
from carray.search.run import run_study
from tests.search.studies import Listener, LocalCluster, local, local_tune, request

__all__ = ["local", "local_tune"]


@pytest.mark.parametrize(("goal", "whose"), [("ensemble", "ensemble"), ("single", "best")])
def test_a_study_says_what_five_more_trials_are_worth_and_stops_for_it(
    local: LocalCluster, toy_data: Path, tmp_path: Path, goal: Goal, whose: str
) -> None:
    board = Listener()
    options = {"trials": 20, "concurrent": 2, "stop_when_gain_below": 10.0, "goal": goal}
    folder = run_study(request(toy_data, tmp_path, **options), board)
    said = [note for note in board.notes if note.startswith(f"{whose} log-loss: last 5 trials")]
    assert said and "next 5" in said[0] and "CPU" in said[0] and len(said[0]) <= 91
    assert any(note.startswith(SMALL_GAIN) and "below 10" in note for note in board.notes)
    records = folder.records()
    assert 6 <= len(records) < 20
    assert folder.record().state == "complete"
    assert all(record.state is not TrialState.RUNNING for record in records)

    again = Listener()
    run_study(request(toy_data, tmp_path, **options), again)
    assert len(folder.records()) == len(records), "it has enough already"


def test_a_gain_of_nothing_is_refused(toy_data: Path, tmp_path: Path) -> None:
    wanted = request(toy_data, tmp_path, stop_when_gain_below=0.0)
    try:
        check_numbers(wanted)
    except ConfigError as error:
        assert str(error) == "--stop-when-gain-below 0 must be above 0"
    else:
        raise AssertionError("it was not refused")
