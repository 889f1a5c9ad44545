"""Many images at once: in order, counted, and stopped at the first error."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from carray.data.parallel import map_images, num_workers
from carray.progress import silent
from carray.typing import Advance


def test_results_come_in_order_and_are_counted() -> None:
    counted: list[int] = []

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Advance]:
        assert (what, total) == ("squares", 50)
        yield counted.append

    assert list(map_images(lambda n: n * n, range(50), "squares", progress)) == [
        n * n for n in range(50)
    ]
    assert sum(counted) == 50


def test_an_error_drops_what_has_not_begun() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        if number == 0:
            failed.set()
            raise ValueError("broken")
        failed.wait(5)
        threading.Event().wait(0.01)

    with pytest.raises(ValueError, match="broken"):
        list(map_images(work, range(500), "work", silent))
    assert len(begun) < 50 + num_workers()
