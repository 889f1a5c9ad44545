"""Requests share batches, wait in a bounded queue, and none is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from carray.serving.batcher import Batcher
from carray.serving.limits import Limits, Refused

LIMITS = Limits(waiting=4, batch=3, batch_wait_seconds=0.0)


class Gate:
    """Answers with the double, once it is open."""

    def __init__(self) -> None:
        self.open, self.entered = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def __call__(self, images: Sequence[int]) -> Sequence[int]:
        self.entered.set()
        self.open.wait(10)
        self.batches.append(len(images))
        if 13 in images:
            raise ValueError("no 13")
        return [2 * image for image in images]


def test_a_full_queue_refuses_and_what_was_taken_is_answered() -> None:
    gate = Gate()
    batcher = Batcher(gate, LIMITS)
    first = batcher.submit([1])
    assert gate.entered.wait(10)
    rest = batcher.submit([2, 3])
    with pytest.raises(Refused, match="3 images wait already") as refused:
        batcher.submit([4, 5])
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    last = batcher.submit([4])
    gate.open.set()
    assert [future.result(10) for future in (*first, *rest, *last)] == [2, 4, 6, 8]
    assert gate.batches == [1, 3]
    batcher.close()
    batcher.join(10)
    assert batcher.waiting == 0
    with pytest.raises(Refused, match="has been replaced"):
        batcher.submit([1])


def test_an_error_is_its_batch_s_alone() -> None:
    gate = Gate()
    gate.open.set()
    batcher = Batcher(gate, LIMITS)
    with pytest.raises(ValueError, match="no 13"):
        batcher.submit([13])[0].result(10)
    assert batcher.submit([1])[0].result(10) == 2
    batcher.close()


def test_what_waits_at_the_end_is_answered() -> None:
    gate = Gate()
    batcher = Batcher(gate, LIMITS)
    futures = batcher.submit([1, 2, 3, 4])
    batcher.close()
    gate.open.set()
    batcher.join(10)
    assert [future.result(0) for future in futures] == [2, 4, 6, 8]
