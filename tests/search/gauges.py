"""Ray's gauges and counters, which keep what they show: for tests of what a study exports."""

from __future__ import annotations

from typing import ClassVar

import pytest

from carray.search.observers import prometheus

Values = dict[str, dict[tuple[str, ...], float]]


class Shown:
    """A gauge or counter that keeps what it shows last, by its tags' values."""

    all: ClassVar[Values] = {}

    def __init__(self, name: str, description: str = "", tag_keys: tuple[str, ...] = ()) -> None:
        self._shown = self.all[name] = {}

    def set_default_tags(self, tags: dict[str, str]) -> None:
        """Every one has the study's."""

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._shown[tuple((tags or {}).values())] = value

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        key = tuple((tags or {}).values())
        self._shown[key] = self._shown.get(key, 0.0) + value


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Values:
    monkeypatch.setattr(prometheus, "Gauge", Shown)
    monkeypatch.setattr(prometheus, "Counter", Shown)
    monkeypatch.setattr(Shown, "all", {})
    return Shown.all
