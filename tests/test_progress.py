"""Progress says what it was given, letter for letter."""

import pytest

from carray import progress


def test_square_brackets_in_what_is_done_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress._bar("fetching Audi [B5]", 3, "trials [all]") as advance:
        advance(3)
    told = capsys.readouterr().err
    assert "fetching Audi [B5]" in told
    assert "trials [all]" in told
