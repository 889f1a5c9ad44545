"""Do one thing to many images on all cores, with progress, and stop at once when it fails."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from carray.typing import Progress

MAX_WORKERS = 32
WAITING = 16 * MAX_WORKERS  # items handed to the threads and not yet taken back

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def map_images(
    function: Callable[[ItemT], ResultT], items: Sequence[ItemT], what: str, progress: Progress
) -> Iterator[ResultT]:
    """Yield `function` of each item, in order; threads, since the decoders free Python's lock.

    After an error or an interrupt the items that haven't begun are dropped.
    """
    with (
        progress(what, len(items)) as advance,
        ThreadPoolExecutor(num_workers()) as pool,
    ):
        try:
            for result in _in_order(pool, function, items):
                advance(1)
                yield result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[ItemT], ResultT], items: Sequence[ItemT]
) -> Iterator[ResultT]:
    """Yield the results in order; few items wait at a time, so that memory doesn't grow."""
    waiting: deque[Future[ResultT]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= WAITING:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def num_workers() -> int:
    """Return the threads that decode at once: the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return min(MAX_WORKERS, len(os.sched_getaffinity(0)))
    return min(MAX_WORKERS, os.cpu_count() or 1)
