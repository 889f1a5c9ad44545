"""The board shares a terminal with the progress of other things."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from carray.config import TrialConfig, build_config
from carray.metrics import (
    IMAGES_PER_SECOND,
    VAL_CALIBRATED_LOG_LOSS,
    VAL_LOG_LOSS,
    VAL_TOP1,
)
from carray.records import StudyRecord, TrialFolder, TrialRecord, TrialState
from carray.search.observers.console import Board, JsonBoard, LiveBoard

STUDY = StudyRecord(name="autumn", started_at=1.0)
HIDDEN_CURSOR = "\x1b[?25l"  # while something is redrawn in place


class Screen(io.StringIO):
    """A terminal that shows what is written to it: as much of one as a redrawn table needs."""

    def isatty(self) -> bool:
        return True

    def rows(self) -> list[str]:
        """Return what stands on it, row by row."""
        rows, row, column = [""], 0, 0
        for part in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if part == "\n":
                row, column = row + 1, 0
                rows += [""] * (row + 1 - len(rows))
            elif part == "\r":
                column = 0
            elif up := re.fullmatch(r"\x1b\[(\d*)A", part):
                row -= int(up[1] or 1)
            elif part == "\x1b[2K":
                rows[row] = ""
            elif not part.startswith("\x1b"):
                rows[row] = (
                    rows[row][:column].ljust(column) + part + rows[row][column + len(part) :]
                )
                column += len(part)
        return [row.rstrip() for row in rows if row.strip()]


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)


def names(rows: list[str]) -> list[str]:
    """Say what each row is: the table's head is told by the study's name."""
    return ["table" if row.startswith("study autumn") else row for row in rows]


def test_a_table_that_is_redrawn_makes_room_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    board = LiveBoard(screen)
    with board.paused():
        screen.write("decoding\n")
    board.note("nothing had been drawn")
    assert screen.rows() == ["decoding", "nothing had been drawn"]
    assert HIDDEN_CURSOR not in screen.getvalue()
    board.study_started(STUDY)
    board.note("lanes come up")
    head = board.render().splitlines()[-1].rstrip()
    told = ["decoding", "nothing had been drawn", "lanes come up"]
    try:
        wait_for(lambda: "table" in names(screen.rows()))
        assert names(screen.rows()) == [*told, "table", head]
        with board.paused():
            assert screen.rows() == told, "the table has made room"
            screen.write("decoding again\n")
            told.append("decoding again")
            assert screen.rows() == told
        board.note("on it goes")
        told.append("on it goes")
        assert names(screen.rows()) == [*told, "table", head], "what was printed is there still"
    finally:
        board.close()
    assert names(screen.rows()) == [*told, "table", head], "the last table stays"


def test_lines_need_no_room() -> None:
    stream = io.StringIO()
    board = Board(stream)
    board.note("lanes come up")
    with board.paused():
        stream.write("decoding\n")
        board.note("a line is no table")
    board.note("on it goes")
    told = [line.partition("] ")[2] or line for line in stream.getvalue().splitlines()]
    assert told == ["lanes come up", "decoding", "a line is no table", "on it goes"]


@pytest.mark.parametrize("kind", [Board, JsonBoard, LiveBoard])
def test_nothing_comes_after_the_last_note(kind: type[Board]) -> None:
    screen = Screen()
    board = kind(screen)
    board.study_started(STUDY)
    others = [threading.Thread(target=board.note, args=(f"note {i}",)) for i in range(50)]
    for each in others[:25]:
        each.start()
    board.last_note("SIGTERM: ended")
    for each in others[25:]:
        each.start()
    for each in others:
        each.join()
    board.study_ended(STUDY)
    assert "SIGTERM: ended" in screen.rows()[-1]


def test_a_log_has_a_sentence_whole(caplog: pytest.LogCaptureFixture) -> None:
    """Why a node gets no lane, and the cure, came after what was cut."""
    stream, sentence = io.StringIO(), "node 10.0.0.7: " + 30 * "reason " + "it gets no lane"
    with caplog.at_level("INFO"):
        Board(stream).note(sentence)
    assert stream.getvalue().endswith(f"{sentence}\n")


def test_a_narrow_terminal_cuts_a_backbones_name_and_no_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    board = LiveBoard(io.StringIO())
    config = build_config({"backbone": "convnextv2_nano.fcmae_ft_in22k_in1k_384", "epochs": 100})
    losses = dict.fromkeys((VAL_LOG_LOSS, VAL_CALIBRATED_LOG_LOSS), 10.1234)
    row = {**losses, VAL_TOP1: 0.123, IMAGES_PER_SECOND: 12345.0}
    record = TrialRecord(
        study="autumn", number=7, config=config, state=TrialState.INFEASIBLE, epochs=(row,) * 100
    )
    board.study_started(STUDY)
    board.trial_started(record)
    *_, header, line = board.render().splitlines()
    board.close()
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
    assert len(line) <= 80


def test_a_study_that_is_complete_leaves_its_table_to_whoever_ran_it() -> None:
    board = LiveBoard(io.StringIO())
    board.study_started(STUDY)
    board.trial_started(TrialRecord(study="autumn", number=7, config=TrialConfig()))
    for state, is_shown in (("running", True), ("interrupted", True), ("complete", False)):
        board.study_ended(STUDY.model_copy(update={"state": state}))
        assert ("resnet18" in board.render()) == is_shown
    assert board.render().startswith("study autumn")


def test_a_start_line_says_what_differs_from_the_trials_before() -> None:
    stream = io.StringIO()
    board = Board(stream)
    shared = {"optimizer.weight_decay": 0.05, "augment.strength": 0.1}
    for number, lr in enumerate((0.003, 0.006, 0.003)):
        params = {"backbone_block": "small", **shared, "small.optimizer.lr": lr}
        board.trial_started(
            TrialRecord(study="autumn", number=number, config=TrialConfig(), params=params)
        )
    again = TrialRecord(study="autumn", number=3, config=TrialConfig(epochs=40), params=params)
    refitted = {"kind": "refit", "refit_of": 1}
    for epochs in ((), ({},)):
        board.trial_started(again.model_copy(update={**refitted, "epochs": epochs}))
    lines = [line.partition("] ")[2] for line in stream.getvalue().splitlines()]
    first, second, copy, refit, resumed = lines
    assert resumed == "refit 0003 goes on after epoch 1: resnet18, trial 0001 for 40 epochs"
    assert refit == "refit 0003 starts: resnet18, trial 0001 for 40 epochs"
    assert copy == "trial 0002 starts: resnet18, lr 0.003, as 0000, another seed"
    assert first == "trial 0000 starts: resnet18, lr 0.003, weight_decay 0.05, strength 0.1"
    assert second == "trial 0001 starts: resnet18, lr 0.006"


def test_an_eta_is_a_running_studys() -> None:
    """A study whose budget was spent at 4 of 15 trials said when its last would have ended."""
    stream = io.StringIO()
    board = Board(stream)
    board.study_started(STUDY.model_copy(update={"trials": 15}))
    for number in range(3):
        record = TrialRecord(study="autumn", number=number, config=TrialConfig())
        board.trial_started(record)
        ended = record.model_copy(update={"state": TrialState.COMPLETE})
        board.trial_ended(ended, TrialFolder(Path("none")))
    board.study_ended(STUDY.model_copy(update={"trials": 15, "state": "interrupted"}))
    *_, third, last = stream.getvalue().splitlines()
    assert "3 of 15 ended, ETA" in third
    assert last.endswith("study autumn is interrupted. 3 of 15 ended")


def test_what_ends_last_is_told_whole_and_refits_count() -> None:
    stream = io.StringIO()
    board = Board(stream)
    board.study_started(STUDY)
    for number, (kind, loss) in enumerate((("search", 2.5), ("refit", 1.25))):
        record = TrialRecord(
            study="autumn",
            number=number,
            kind=kind,
            config=TrialConfig(),
            state=TrialState.COMPLETE,
            reason="long " * 20,
            epochs=({STUDY.metric: loss, VAL_CALIBRATED_LOG_LOSS: loss},),
            params={"augment.transform": ""},
        )
        board.trial_started(record)
        board.trial_ended(record, TrialFolder(Path("none")))
    begun, _, _, told = stream.getvalue().splitlines()
    assert begun.endswith("transform none")
    assert told.endswith(f"{'long ' * 20}). 1 of 0 ended, best log-loss 1.2500 (trial 0001)")


@pytest.mark.parametrize("kind", [Board, JsonBoard])
def test_a_study_goes_on_when_nobody_reads_its_events_any_more(
    kind: type[Board], capsys: pytest.CaptureFixture[str]
) -> None:
    """As `carray tune --json | head -1`."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        board = kind(stream)
        board.note("read")
        assert "read" in os.read(reader, 1000).decode()
        os.close(reader)
        board.note("not read")
        board.note("nor is this")
        print("what the command prints in the end", file=stream)
    assert capsys.readouterr().err.count("nobody reads its events") == 1
