"""The board: how a study stands after each event, without a look at all its trials."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from carray.config import build_config
from carray.metrics import IMAGES_PER_SECOND, VAL_LOG_LOSS, VAL_TOP1
from carray.records import StudyRecord, TrialFolder, TrialRecord, TrialState
from carray.search.board import Board

FOLDER = TrialFolder(Path("anywhere"))


def row(log_loss: float, top1: float = 0.5) -> dict[str, float]:
    return {VAL_LOG_LOSS: log_loss, VAL_TOP1: top1, IMAGES_PER_SECOND: 100.0}


def trial(number: int, *epochs: dict[str, float], **more: object) -> TrialRecord:
    config = build_config({"best_metric": VAL_TOP1, "epochs": 3})
    record = TrialRecord(study="s", number=number, config=config, epochs=epochs)
    return record.model_copy(update=more)


@pytest.fixture
def board() -> Board:
    board = Board(stream=io.StringIO())
    board.study_started(StudyRecord(name="s", trials=50))
    return board


def last_line(board: Board) -> str:
    assert isinstance(board._stream, io.StringIO)
    return board._stream.getvalue().splitlines()[-1]


def run(board: Board, record: TrialRecord) -> None:
    """Tell a trial from its start to its end."""
    board.trial_started(record.model_copy(update={"epochs": ()}))
    for count in range(1, len(record.epochs) + 1):
        board.epoch_ended(record.model_copy(update={"epochs": record.epochs[:count]}))
    board.trial_ended(record.model_copy(update={"state": TrialState.COMPLETE}), FOLDER)


def test_the_best_is_told_by_each_trials_own_best_epoch(board: Board) -> None:
    run(board, trial(0, row(0.9)))
    run(board, trial(1, row(0.1, top1=0.4), row(0.7, top1=0.6)))
    assert "2 of 50 ended, best log-loss 0.7000 (trial 0001)" in last_line(board)
    run(board, trial(2, row(0.8)))
    assert "3 of 50 ended, best log-loss 0.7000 (trial 0001)" in last_line(board)


def test_trials_without_a_value_and_refits_are_not_the_best(board: Board) -> None:
    board.trial_ended(trial(0, state=TrialState.FAILED), FOLDER)
    assert last_line(board).endswith("1 of 50 ended")
    run(board, trial(1, row(0.9)))
    run(board, trial(2, row(0.1), kind="refit", refit_of=1))
    assert "2 of 50 ended, best log-loss 0.9000 (trial 0001)" in last_line(board)


def test_trials_of_earlier_calls_count_but_for_the_pace(board: Board) -> None:
    board.known([trial(n, row(0.2 + n), state=TrialState.COMPLETE) for n in range(5)])
    run(board, trial(5, row(0.5)))
    assert "6 of 50 ended, best log-loss 0.2000 (trial 0000)" in last_line(board)
    assert "ETA" not in last_line(board)


def test_an_event_reads_no_other_trials_epochs(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    best = TrialRecord.best
    monkeypatch.setattr(TrialRecord, "best", lambda r, name: read.append(r.number) or best(r, name))
    counts = []
    for number in range(40):
        read.clear()
        run(board, trial(number, row(1.0 - 0.01 * number)))
        counts.append(len(read))
    assert counts[-1] == counts[1]
