"""Uploads aside: in order, tried again, and never in anybody's way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from carray.errors import StorageError
from carray.storage import uploads
from carray.storage.uploads import Uploads


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "RETRY_SECONDS", (0.01,))
    monkeypatch.setattr(uploads, "FAILING_SECONDS", 0.3)


def failing(times: int, then: Callable[[], None]) -> Callable[[], None]:
    left = [times]

    def task() -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise StorageError("the store is away")
        then()

    return task


def test_order_is_kept_through_failures_and_both_ends_of_them_are_said() -> None:
    done: list[str] = []
    said: list[str] = []
    queue = Uploads("test", said.append)
    queue.put("first", failing(3, lambda: done.append("first")))
    queue.put("second", lambda: done.append("second"))
    assert queue.close() == []
    assert done == ["first", "second"]
    assert said == [
        "an upload failed, and is tried again: the store is away",
        "uploads go on",
    ]


def test_queues_to_one_url_say_once_that_it_is_away_and_that_all_go_on() -> None:
    said: list[str] = []
    failing: set[str] = set()
    back = threading.Event()

    def task() -> None:
        if not back.is_set():
            raise StorageError("the store is away")

    queues = [Uploads(str(number), said.append, failing) for number in range(3)]
    for queue in queues:
        queue.put("file", task)
    wait_for(lambda: len(failing) == 3)
    back.set()
    assert [queue.close() for queue in queues] == [[], [], []]
    assert said == ["an upload failed, and is tried again: the store is away", "uploads go on"]


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_what_is_asked_for_again_is_carried_once_and_keeps_its_place() -> None:
    done: list[str] = []
    go = threading.Event()
    queue = Uploads("test", lambda text: None)
    queue.put("busy", lambda: go.wait(10) and None)
    for name in ("a", "b", "a"):
        queue.put(name, lambda name=name: done.append(name))  # type: ignore[misc]
    go.set()
    queue.close()
    assert done == ["a", "b"]


def test_a_store_that_stays_away_is_given_up_and_what_is_missing_is_named() -> None:
    queue = Uploads("test", lambda text: None)
    queue.put("record.json", failing(10**6, lambda: None))
    queue.put("logits.npz", lambda: None)
    assert queue.close() == ["record.json", "logits.npz"]


def test_a_file_that_is_gone_is_no_failure() -> None:
    said: list[str] = []
    queue = Uploads("test", said.append)

    def gone() -> None:
        raise FileNotFoundError("epochs.jsonl")

    queue.put("epochs.jsonl", gone)
    assert queue.close() == []
    assert said == []


def test_what_is_dropped_while_it_fails_is_not_tried_again() -> None:
    begun, go, done = threading.Event(), threading.Event(), []

    def task() -> None:
        if begun.is_set():
            done.append("written over what another machine has")
            return
        begun.set()
        go.wait(10)
        raise StorageError("the store is away")

    queue = Uploads("test", lambda text: None)
    queue.put("record.json", task)
    begun.wait(10)
    queue.drop("another machine has gone on")
    queue.put("epochs.jsonl", lambda: done.append("and more of it"))
    go.set()
    assert queue.close() == []
    assert done == []
