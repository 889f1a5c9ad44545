"""Progress says what it was given, letter for letter."""

import sys

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
