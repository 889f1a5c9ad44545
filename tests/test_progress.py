"""Progress says what it was given, letter for letter."""

import sys
from types import SimpleNamespace

import pytest

from carray.progress import progress


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
