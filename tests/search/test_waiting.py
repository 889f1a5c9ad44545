"""What is waited for is said, with seconds, and what is quick is not."""

from __future__ import annotations

import time

from carray.search.waiting import waiting_for


def test_a_long_wait_is_told_while_it_lasts_and_at_its_end() -> None:
    told: list[str] = []
    up = [0]
    with waiting_for("2 lanes", told.append, lambda: f"{up[0]} of 2 up", 0.05, 0.05):
        while len(told) < 2:
            time.sleep(0.01)
        up[0] = 1
        while "1 of 2 up" not in told[-1]:
            time.sleep(0.01)
    assert told[0] == "waiting for 2 lanes: 0 s, 0 of 2 up"
    assert told[-1].startswith("waited ")
    assert told[-1].endswith(" s for 2 lanes")


def test_a_short_wait_is_not_mentioned() -> None:
    told: list[str] = []
    with waiting_for("Ray to start", told.append):
        pass
    assert told == []
