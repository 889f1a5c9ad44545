"""Watches a search: reports lanes that are missing, and a search that makes no progress."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import ray

from carray.errors import counted
from carray.lanes.lane import Lanes
from carray.progress import seconds_text
from carray.search.ledger import INTERRUPTED, Ledger

LOOK_SECONDS = 5.0
LANES_ENDED = "every lane has ended"  # for good: nothing can be trained any more
SILENT_SECONDS = 600.0  # without an epoch, and three times the longest so far, before that is said
SAY_AFTER_SECONDS = 60.0  # a lane that is down for longer is named, and again as often


class Screen(Protocol):
    """Where it is shown: a study's board."""

    def note(self, text: str) -> None:
        """Show a sentence."""

    def lanes(self, up: int, wanted: int, lost: int) -> None:
        """Show how many lanes are up, of those wanted, and how many have lost their node."""


class Grows(Protocol):
    """What adds lanes to those that are watched: `Growth`."""

    def wanted(self) -> int:
        """Return how many lanes there should be."""

    def look(self) -> None:
        """Begin the lanes that there is room for."""


@contextlib.contextmanager
def watched(lanes: Lanes, ledger: Ledger, screen: Screen, growth: Grows) -> Iterator[None]:
    """Say which lanes are missing; add some; end the search if every lane is gone for good."""
    over = threading.Event()
    watch = Watch(lanes, ledger, screen.note)

    def look() -> bool:
        has_ended = watch.has_ended_search()
        watch.look()  # after it: what has ended is said as well
        if (counts := watch.counts(growth.wanted())) is not None:
            screen.lanes(*counts)
        return has_ended

    # apart: a node that doesn't answer a check must not keep another's loss from being seen
    looks: list[Callable[[], object]] = [look, growth.look]
    threads = [threading.Thread(target=_repeat, args=(each, over), daemon=True) for each in looks]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _repeat(look: Callable[[], object], over: threading.Event) -> None:
    """Look now and then, and a last time: what came back just now is said as well."""
    is_over = False
    while not is_over:
        is_over = over.wait(LOOK_SECONDS)
        with contextlib.suppress(ray.exceptions.RayError):
            is_over = bool(look()) or is_over


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
        self._lives: list[int] = []
        self._counts: tuple[int, int, int] | None = None  # those shown last
        self._retired = 0

    def has_ended_search(self) -> bool:
        """End the search if every lane has ended for good; say whether it has."""
        if len(self._lanes.errors) < self._lanes.num_lanes:
            return False
        self._ledger.stopped = LANES_ENDED
        self._lanes.fail(INTERRUPTED)
        return True

    def counts(self, wanted: int) -> tuple[int, int, int] | None:
        """Return (up, wanted, lost) where that is worth showing: it differs from what was planned.

        None where lanes are only coming up, and where it was shown before.
        """
        lost, gone = set(self._lanes.lost()), set(self._lanes.errors)
        up = {lane for lane, life in enumerate(self._lanes.lives()) if life > 0}
        counts = len(up - lost - gone), wanted, len(lost)
        is_planned = wanted <= self._lanes.num_lanes and not (lost or gone)
        if counts == self._counts or (is_planned and self._counts is None):
            return None
        self._counts = counts
        return counts

    def look(self) -> None:
        """Say which lanes ended for good, lost a node, came back, retired, or are not placed."""
        for lane in sorted(set(self._lanes.errors) - self._ended):
            self._ended.add(lane)
            self._say(f"lane {lane} ended for good: {_last_line(self._lanes.errors[lane])}")
        for lane in self._lanes.release_lost():
            self._say(f"lane {lane} has lost its node; its trial goes on on the next free lane")
        for lane in self._lanes.leave_drained():
            self._say(f"lane {lane}'s node is drained; its trial goes on elsewhere after the epoch")
        lives = self._lanes.lives()
        self._lives += [1] * (len(lives) - len(self._lives))
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
            short = (
                f"{missing} of {counted(self._lanes.num_lanes, 'lane')} not placed after {waited}"
            )
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
