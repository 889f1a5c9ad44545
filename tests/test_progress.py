"""Progress says what it was given, letter for letter."""

import sys
from types import SimpleNamespace

import pytest

from carray.progress import LateBar, progress


def test_square_brackets_in_what_is_done_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("fetching Audi [B5]", 3, "trials [all]") as advance:
        advance(3)
    told = capsys.readouterr().err
    assert "fetching Audi [B5]" in told
    assert "trials [all]" in told


def test_slow_steps_have_a_rate_and_their_own_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = SimpleNamespace(monotonic=iter((0.0, 4.0)).__next__)
    monkeypatch.setattr("carray.progress.time", clock)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    with progress("averaging", 9, "averages") as advance:
        advance(9)
    assert "averages  2.2/s" in capsys.readouterr().err


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_comes_late_and_only_to_a_terminal(
    is_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SimpleNamespace(monotonic=lambda: seconds)
    monkeypatch.setattr("carray.progress.time", now)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    seconds, bar = 100.0, LateBar("epoch 3", 90)
    bar.advance(20)
    seconds += 1
    bar.advance(20)
    assert capsys.readouterr().err == ""
    seconds += 3
    bar.advance(20)
    bar.close()
    told = capsys.readouterr().err
    assert ("60/90" in told and "images  15/s" in told) if is_terminal else told == ""
    bar.advance(20)
    assert capsys.readouterr().err == "", "it is gone"
