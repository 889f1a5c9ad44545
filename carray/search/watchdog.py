"""The watchdog: no search hangs in silence."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from carray.progress import seconds_text
from carray.search.ledger import Ledger
from carray.training.lane import Lanes

LOOK_SECONDS = 5.0
SAY_AFTER_SECONDS = 60.0  # a lane that is down for longer is named, and again as often


@contextlib.contextmanager
def watched(lanes: Lanes, ledger: Ledger, say: Callable[[str], None]) -> Iterator[None]:
    """Say which lanes are missing; end the search if every lane is gone for good."""
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(lanes, ledger, say, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(lanes: Lanes, ledger: Ledger, say: Callable[[str], None], over: threading.Event) -> None:
    start = said_at = time.monotonic()
    told: set[int] = set()
    while not over.wait(LOOK_SECONDS):
        for lane, error in lanes.errors.items():
            if lane not in told:
                told.add(lane)
                say(f"lane {lane} ended for good: {_last_line(error)}")
        if len(lanes.errors) == lanes.num_lanes:
            ledger.stopped = "every lane has ended"
            lanes.fail("interrupted")
            return
        with contextlib.suppress(Exception):
            missing = lanes.num_lanes - lanes.lanes_up() - len(lanes.errors)
            if missing > 0 and time.monotonic() - said_at > SAY_AFTER_SECONDS:
                said_at = time.monotonic()
                waited = seconds_text(said_at - start)
                short = f"{missing} of {lanes.num_lanes} lanes not placed after {waited}"
                say(f"{short}: each asks for {_asked(lanes)}")


def _asked(lanes: Lanes) -> str:
    asked = lanes.shape.resources_per_worker()
    return " and ".join(f"{value:g} {name}" for name, value in asked.items()) + " a rank"


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
