"""The watchdog: what is said of lanes and trials that don't get on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray.tune.schedulers import FIFOScheduler

from carray.lanes.lane import LaneShape
from carray.lanes.memory_guard import MemoryLimit
from carray.lanes.messages import LaneOrder
from carray.metrics import EPOCH_SECONDS
from carray.search import watchdog
from carray.search.ledger import INTERRUPTED
from carray.search.scheduling.driver import Driver
from carray.search.scheduling.tune_run import run_search
from carray.search.watchdog import LANES_ENDED, Watch, watched
from tests.lanes.fakes import WAIT_SECONDS, FakeLanes, Fakes, LaneLost
from tests.search.studies import Listener, local_tune
from tests.search.test_ledger import open_ledger, row

__all__ = ["local_tune"]
SHAPE = LaneShape(num_workers=1, cpus_per_worker=2.0)
EVERYTHING = MemoryLimit(gib=-1.0, share=-1.0)  # any memory at all is growth


@contextmanager
def lanes_of(
    num_lanes: int, start: Callable[[int], None] = int, shape: LaneShape = SHAPE
) -> Iterator[FakeLanes]:
    lanes = FakeLanes(num_lanes, shape, Fakes(start=start))
    lanes.start()
    try:
        yield lanes
    finally:
        lanes.stop(1.0)


class Still:
    """Two lanes are wanted, and none is added."""

    def wanted(self) -> int:
        return 2

    def look(self) -> None:
        """Nothing joins."""


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def wait_for(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("silent", "longest", "lives", "is_said"),
    [
        (700.0, 30.0, [1, 0], True),
        (500.0, 30.0, [1, 0], False),
        (700.0, 300.0, [1, 0], False),  # such epochs take long
        (700.0, 30.0, [0, 0], False),  # nothing has begun
    ],
)
def test_a_search_that_may_hang_says_so_once(
    tmp_path: Path, silent: float, longest: float, lives: list[int], is_said: bool
) -> None:
    clock, may_come = Clock(), threading.Event()
    ledger, _ = open_ledger(tmp_path, clock=clock)
    assert ledger.ask()
    ledger.report(0, 1, row(1.0) | {EPOCH_SECONDS: longest}, {})

    def start(lane: int) -> None:
        assert lives[lane] or may_come.wait(WAIT_SECONDS)

    with lanes_of(2, start) as lanes:
        wait_for(lambda: lanes.lives() == lives)
        said: list[str] = []
        watch = Watch(lanes, ledger, said.append, clock)
        clock.now += silent
        watch.look()
        watch.look()
        may_come.set()
    missing = [text for text in said if "not placed" in text]
    assert [text.partition(" after ")[0] for text in missing] == [
        f"{lives.count(0)} of 2 lanes not placed"
    ]
    assert missing[0].endswith("each asks for 2 CPU a rank")
    silence = [text for text in said if text not in missing]
    assert len(silence) == is_said
    assert all("no epoch has ended for" in text and "Ctrl-C" in text for text in silence)


def test_a_lane_that_is_missing_is_named_again_after_as_long(tmp_path: Path) -> None:
    clock, may_come = Clock(), threading.Event()
    ledger, _ = open_ledger(tmp_path, clock=clock)

    def start(lane: int) -> None:
        assert lane == 0 or may_come.wait(WAIT_SECONDS)

    with lanes_of(2, start) as lanes:
        wait_for(lambda: lanes.lives() == [1, 0])
        said: list[str] = []
        watch = Watch(lanes, ledger, said.append, clock)
        for seconds in (59.0, 2.0, 50.0, 11.0):
            clock.now += seconds
            watch.look()
        may_come.set()
        wait_for(lambda: lanes.lives() == [1, 1])
        clock.now += 100.0
        watch.look()
    assert len(said) == 2


def test_each_lane_that_was_lost_or_retired_or_ended_is_named_once(
    tmp_path: Path, local_tune: None
) -> None:
    """The first lane loses a rank, and goes after its fourth trial; the second never comes up."""
    ledger, _ = open_ledger(tmp_path, trials=5)

    def start(lane: int) -> None:
        if lane == 1:
            raise RuntimeError("no place\nfor this one")

    shape = LaneShape(1, 2.0, allowed_growth=EVERYTHING)
    with lanes_of(2, start, shape) as lanes:
        lanes.faults.raises(LaneLost(), trial=0, epoch=2)
        said: list[str] = []
        watch = Watch(lanes, ledger, said.append)
        driver = Driver(ledger, lanes, str(tmp_path), lambda record: watch.look())
        run_search(driver, FIFOScheduler(), None, tmp_path)
        watch.look()
        watch.look()
        assert not watch.has_ended_search()
    assert [record.state for record in ledger.records] == ["complete"] * 5
    (retired,) = [text for text in said if " grew from " in text]
    assert retired.endswith("in 4 trials; its worker group was started anew between two trials")
    assert sorted(set(said) - {retired}) == [
        "lane 0 lost a rank and is back; its epoch was begun again",
        "lane 1 ended for good: for this one",
    ]
    assert len(said) == 3


@pytest.mark.parametrize("goes_at", [0.0, 1.0], ids=["no deadline", "too late to end an epoch"])
def test_a_drained_lane_ends_its_epoch_or_hands_it_over(
    tmp_path: Path, local_tune: None, goes_at: float
) -> None:
    ledger, _ = open_ledger(tmp_path, trials=3)
    with lanes_of(2) as lanes:
        stall, said = lanes.faults.stalls(lane=0, epoch=2), list[str]()
        watch = Watch(lanes, ledger, said.append)

        def second_epochs() -> int:
            return [epoch for _, epoch in lanes.faults.trained()].count(2)

        def drain() -> None:
            assert stall.reached.wait(WAIT_SECONDS)
            lanes.faults.draining = {"0": goes_at}
            watch.look()
            if goes_at:
                wait_for(lambda: second_epochs() == 4)
            stall.go.set()

        draining = threading.Thread(target=drain)
        draining.start()
        run_search(Driver(ledger, lanes, str(tmp_path), str), FIFOScheduler(), None, tmp_path)
        draining.join()
        wait_for(lambda: len(lanes.errors) == 1)
        watch.look()
    assert [(r.state, len(r.epochs)) for r in ledger.records] == [("complete", 3)] * 3
    assert second_epochs() == (4 if goes_at else 3)
    assert said == [
        "lane 0's node is drained; its trial goes on elsewhere after the epoch",
        "lane 0 ended for good: its node is drained",
    ]


def test_a_search_whose_every_lane_has_ended_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.01)
    ledger, _ = open_ledger(tmp_path)

    def start(lane: int) -> None:
        raise RuntimeError(f"node {lane} is gone")

    with lanes_of(2, start) as lanes:
        waits, board = lanes.call(LaneOrder("exit")), Listener()
        with watched(lanes, ledger, board, Still()):
            assert waits.result(WAIT_SECONDS).reason == INTERRUPTED
    assert ledger.stopped == LANES_ENDED
    assert ledger.ask() is None
    assert board.notes == [f"lane {n} ended for good: node {n} is gone" for n in (0, 1)]
