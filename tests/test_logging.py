"""What the library has to say goes through the logger `carray`."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest

from carray.cli.log import log_on_stderr, log_on_stdout
from carray.progress import progress
from carray.search.observers.console import Board, JsonBoard, LiveBoard
from carray.tracking import sync

LIBRARY = """
import logging
import carray.progress
from carray.tracking import sync
carray.progress.LINE_EVERY_SECONDS = 0.0
{setup}
with carray.progress.progress("reading", 4) as advance:
    advance(4)
sync._logger.warning("the store doesn't answer")
"""


@pytest.fixture(autouse=True)
def level() -> Iterator[None]:
    logger = logging.getLogger("carray")
    before = logger.level
    yield
    logger.setLevel(before)


def said(setup: str) -> str:
    """Return what a program of its own, which uses the library, writes to stderr."""
    program = [sys.executable, "-c", LIBRARY.format(setup=setup)]
    return subprocess.run(program, check=True, capture_output=True, text=True).stderr


def test_a_library_user_sees_progress_and_warnings_without_setting_logging_up() -> None:
    lines = said("").splitlines()
    assert lines[0].startswith("reading: 4 of 4 images")
    assert lines[-1] == "the store doesn't answer"


def test_a_raised_level_silences_the_library() -> None:
    assert "reading" not in said("logging.getLogger('carray').setLevel(logging.WARNING)")
    assert said("logging.getLogger('carray').setLevel(logging.CRITICAL)") == ""


def test_a_handler_of_the_users_own_gets_everything() -> None:
    told = said(
        "logging.basicConfig(level=logging.INFO, format='<%(name)s %(levelname)s %(message)s>')"
    )
    assert "<carray.progress INFO reading: 4 of 4 images" in told
    assert told.splitlines()[-1] == "<carray.tracking.sync WARNING the store doesn't answer>"
    assert all(line.startswith("<") for line in told.splitlines())


def test_the_command_line_prints_the_same_lines_as_ever(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carray.progress.LINE_EVERY_SECONDS", 0.0)
    with log_on_stderr():
        with progress("reading", 4) as advance:
            advance(4)
        sync._logger.warning("the store doesn't answer")
    out, err = capsys.readouterr()
    first, last = err.splitlines()
    assert out == ""
    assert first.startswith("reading: 4 of 4 images, ")
    assert last == "carray: the store doesn't answer"
    assert not logging.getLogger("carray").handlers


def test_a_raised_level_takes_the_bar_away(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logging.getLogger("carray").setLevel(logging.ERROR)
    with progress("reading", 4) as advance:
        advance(4)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("board", [Board, JsonBoard, LiveBoard])
def test_what_a_board_notes_is_logged_too(
    board: type[Board], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "carray")
    stream = io.StringIO()
    with log_on_stderr():
        board(stream).note("lanes come up")
    assert caplog.messages == ["lanes come up"]
    assert stream.getvalue().count("lanes come up") == 1
    assert capsys.readouterr().err == "", "the command line shows it once"


def test_a_board_shows_its_notes_unless_the_level_is_raised() -> None:
    stream = io.StringIO()
    Board(stream).note("shown without any handler")
    logging.getLogger("carray").setLevel(logging.WARNING)
    Board(stream).note("silenced")
    assert stream.getvalue().endswith("shown without any handler\n")


def test_a_command_prints_its_own_answer_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("carray.tracking.ui")
    with log_on_stderr(), log_on_stdout(logger.name):
        logger.info("MLflow on a port")
    assert capsys.readouterr() == ("MLflow on a port\n", "")
    assert logger.propagate
    assert not logger.handlers
