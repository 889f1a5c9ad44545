"""The board shares a terminal with the progress of other things."""

from __future__ import annotations

import pytest

from carray.config import TrialConfig, build_config
from carray.metrics import IMAGES_PER_SECOND, VAL_LOG_LOSS, VAL_TOP1
from carray.records import StudyRecord, TrialRecord, TrialState
from carray.search.observers.console import Board, LiveBoard


def test_a_table_that_is_redrawn_makes_room_and_comes_back() -> None:
    board = LiveBoard()
    with board.paused():
        assert not board._live.is_started
    assert not board._live.is_started, "nothing had been drawn"
    board.study_started(StudyRecord(name="autumn", started_at=1.0))
    try:
        drawn = board._live
        with board.paused():
            assert not board._live.is_started
        assert board._live is not drawn, "the old one would wipe what was printed meanwhile"
        assert board._live.is_started
        assert not board._live.transient, "the last table stays"
    finally:
        board.close()


def test_lines_need_no_room() -> None:
    with Board().paused():
        pass


def test_a_narrow_terminal_cuts_a_backbones_name_and_no_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    board = LiveBoard()
    study = StudyRecord(name="autumn", started_at=1.0)
    config = build_config({"backbone": "convnextv2_nano.fcmae_ft_in22k_in1k_384", "epochs": 100})
    row = {VAL_LOG_LOSS: 10.1234, VAL_TOP1: 0.123, IMAGES_PER_SECOND: 12345.0}
    record = TrialRecord(
        study="autumn", number=7, config=config, state=TrialState.INFEASIBLE, epochs=(row,) * 100
    )
    board._study = study
    board._take(record)
    with board._console.capture() as drawn:
        board._console.print(board._draw())
    *_, header, line = drawn.get().splitlines()
    assert header.split() == [
        "trial",
        "state",
        "backbone",
        "epoch",
        "log-loss",
        "top-1",
        "images/s",
        "lr",
    ]
    assert line.split()[-5:] == ["100/100", "10.1234", "0.123", "12345", "1.0e-03"]
    assert "convnextv2" in line


def test_a_study_that_is_complete_leaves_its_table_to_whoever_ran_it() -> None:
    board = LiveBoard()
    study = StudyRecord(name="autumn", started_at=1.0)
    board._study = study
    board._take(TrialRecord(study="autumn", number=7, config=TrialConfig()))
    for state, is_shown in (("running", True), ("interrupted", True), ("complete", False)):
        board.study_ended(study.model_copy(update={"state": state}))
        with board._console.capture() as drawn:
            board._console.print(board._draw())
        assert ("resnet18" in drawn.get()) == is_shown
