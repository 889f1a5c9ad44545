"""Watches a search: reports lanes that are missing, and a search that makes no progress."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import ray

from carray.lanes.lane import Lanes
from carray.progress import seconds_text
from carray.search.ledger import INTERRUPTED, Ledger

LOOK_SECONDS = 5.0
LANES_ENDED = "every lane has ended"  # for good: nothing can be trained any more
SILENT_SECONDS = 600.0  # without an epoch, and three times the longest so far, before that is said
SAY_AFTER_SECONDS = 60.0  # a lane that is down for longer is named, and again as often


@contextlib.contextmanager
def watched(lanes: Lanes, ledger: Ledger, say: Callable[[str], None]) -> Iterator[None]:
    """Say which lanes are missing; end the search if every lane is gone for good."""
    over = threading.Event()
    watch = Watch(lanes, ledger, say)
    thread = threading.Thread(target=_keep_watch, args=(watch, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _keep_watch(watch: Watch, over: threading.Event) -> None:
    while True:
        is_over = over.wait(LOOK_SECONDS) or watch.has_ended_search()
        with contextlib.suppress(ray.exceptions.RayError):
            watch.look()  # a last time too: what came back or ended just now is said as well
        if is_over:
            return


class Watch:
    """What has been said already, so that each thing is said once."""

    def __init__(
        self,
        lanes: Lanes,
        ledger: Ledger,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes = lanes
        self._ledger = ledger
        self._say = say
        self._clock = clock  # the ledger's
        self._start = self._said_at = self._silence_said_at = clock()
        self._ended: set[int] = set()
        self._lives = [1] * lanes.num_lanes
        self._retired = 0

    def has_ended_search(self) -> bool:
        """End the search if every lane has ended for good; say whether it has."""
        if len(self._lanes.errors) < self._lanes.num_lanes:
            return False
        self._ledger.stopped = LANES_ENDED
        self._lanes.fail(INTERRUPTED)
        return True

    def look(self) -> None:
        """Say which lanes ended for good, lost a node, came back, retired, or are not placed."""
        for lane in sorted(set(self._lanes.errors) - self._ended):
            self._ended.add(lane)
            self._say(f"lane {lane} ended for good: {_last_line(self._lanes.errors[lane])}")
        for lane in self._lanes.release_lost():
            self._say(f"lane {lane} has lost its node; its trial goes on on the next free lane")
        lives = self._lanes.lives()
        for lane, (life, before) in enumerate(zip(lives, self._lives, strict=True)):
            if life > before:
                self._say(f"lane {lane} lost a rank and is back; its epoch was begun again")
        # one that has retired counts less until it is back
        self._lives = list(map(max, lives, self._lives))
        retired = self._lanes.retired()
        for why in retired[self._retired :]:
            self._say(f"{why}; its worker group was started anew between two trials")
        self._retired = len(retired)
        missing = lives.count(0) - len(self._ended)
        if missing > 0 and self._clock() - self._said_at > SAY_AFTER_SECONDS:
            self._said_at = self._clock()
            waited = seconds_text(self._said_at - self._start)
            short = f"{missing} of {self._lanes.num_lanes} lanes not placed after {waited}"
            self._say(f"{short}: each asks for {_asked(self._lanes)}")
        if missing < self._lanes.num_lanes:
            self._look_for_silence()

    def _look_for_silence(self) -> None:
        """Say so where lanes are up and no trial has got on for long: one may hang."""
        ledger, now = self._ledger, self._clock()
        longest = max(SILENT_SECONDS, 3 * ledger.longest_epoch_seconds)
        if now - max(ledger.heard_at, self._silence_said_at) > longest:
            self._silence_said_at = now
            silent = seconds_text(now - ledger.heard_at)
            self._say(f"no epoch has ended for {silent}; if it hangs: Ctrl-C, and the same command")


def _asked(lanes: Lanes) -> str:
    needs = lanes.shape.resources_per_worker()
    return " and ".join(f"{value:g} {name}" for name, value in needs.items()) + " a rank"


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
