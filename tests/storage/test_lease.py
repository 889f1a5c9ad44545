"""One machine at a time works on what lies at a URL; one that has gone is succeeded."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from carray.storage import lease
from carray.storage.lease import Holder, Lease
from carray.storage.remote import RemoteFolder


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lease:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.02)
    return Lease(RemoteFolder(tmp_path.as_uri()), "driver.json")


def test_a_holder_that_lives_is_seen_one_that_ended_or_died_is_not(held: Lease) -> None:
    assert held.holder() is None
    with held.held(lambda holder: None) as own:
        seen = held.holder()
        assert seen is not None
        assert seen.id == own.id
        assert held.is_alive(seen, lost_seconds=5)
    ended = held.holder()
    assert ended is not None
    assert ended.has_ended
    assert not held.is_alive(ended, lost_seconds=5)
    killed = ended.model_copy(update={"has_ended": False})
    held._write(killed)
    assert not held.is_alive(killed, lost_seconds=0.1)


def test_who_is_succeeded_meanwhile_learns_by_whom_and_writes_no_more(held: Lease) -> None:
    lost = threading.Event()
    by: list[str] = []

    def on_lost(holder: Holder) -> None:
        by.append(holder.host)
        lost.set()

    with held.held(on_lost):
        held._write(Holder(id="other", host="node-b"))
        assert lost.wait(5)
    assert by == ["node-b"]
    last = held.holder()
    assert last is not None
    assert (last.id, last.has_ended) == ("other", False)
