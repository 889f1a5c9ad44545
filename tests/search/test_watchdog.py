"""The watchdog: what is said of lanes and trials that don't get on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from carray.search import watchdog


@pytest.mark.parametrize(
    ("silent", "longest", "lives", "is_said"),
    [
        (700.0, 30.0, [1, 0], True),
        (500.0, 30.0, [1, 0], False),
        (700.0, 300.0, [1, 0], False),  # such epochs take long
        (700.0, 30.0, [0, 0], False),  # nothing has begun
    ],
)
def test_a_search_that_may_hang_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
    silent: float,
    longest: float,
    lives: list[int],
    is_said: bool,
) -> None:
    clock = SimpleNamespace(monotonic=lambda: 1000.0)
    monkeypatch.setattr(watchdog, "time", clock)
    said: list[str] = []
    lanes: Any = SimpleNamespace(num_lanes=2, errors={}, lives=lambda: lives, retired=list)
    ledger: Any = SimpleNamespace(heard_at=1000.0, longest_epoch_seconds=longest)
    watch = watchdog._Watch(lanes, ledger, said.append)
    monkeypatch.setattr(watchdog, "SAY_AFTER_SECONDS", 10_000.0)
    clock.monotonic = lambda: 1000.0 + silent
    watch.look()
    watch.look()
    assert len(said) == is_said
    assert all("no epoch has ended for" in text and "Ctrl-C" in text for text in said)
