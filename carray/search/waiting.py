"""Saying what a study waits for, and for how long, while nothing else is to be said."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

FIRST_SECONDS = 3.0  # what takes less is not worth a line
EVERY_SECONDS = 15.0


@contextmanager
def waiting_for(
    what: str,
    say: Callable[[str], None],
    detail: Callable[[], str] = lambda: "",
    first_seconds: float = FIRST_SECONDS,
    every_seconds: float = EVERY_SECONDS,
) -> Iterator[None]:
    """Say now and then that `what` is waited for, with seconds; in the end, how long it took.

    Args:
        what: as in `Ray to start`.
        say: takes a sentence; called from another thread.
        detail: how far it is, as in `0 of 2 up`.
        first_seconds: before the first sentence; what ends sooner is not mentioned.
        every_seconds: between one sentence and the next.
    """
    start, ended = time.monotonic(), threading.Event()

    def tell() -> None:
        pause = first_seconds
        while not ended.wait(pause):
            progress = ""
            with suppress(Exception):  # who waits will hear of it
                progress = detail()
            so_far = f", {progress}" if progress else ""
            say(f"waiting for {what}: {time.monotonic() - start:.0f} s{so_far}")
            pause = every_seconds

    teller = threading.Thread(target=tell, name="waiting", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()
        seconds = time.monotonic() - start
        if seconds >= first_seconds:
            say(f"waited {seconds:.0f} s for {what}")
