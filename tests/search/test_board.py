"""The board shares a terminal with the progress of other things."""

from __future__ import annotations

from carray.records import StudyRecord
from carray.search.board import Board, LiveBoard


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
