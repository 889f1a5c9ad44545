"""Lanes: worker groups that stay, and carry out orders from the study's mailbox.

A nested trainer starts eight processes a trial; a lane starts them once. Rank r of a lane runs
`lane_loop`, see `lane_rank.py`. See `mailbox.py` for who gets what, and for what happens when a
rank dies. `ray_groups.py` has Ray Train's groups; `Lanes` themselves know no Ray.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from carray.errors import PlanError, counted
from carray.lanes.mailbox_client import MailboxClient
from carray.lanes.memory_guard import MemoryLimit
from carray.lanes.messages import Answer, LaneOrder

HAND_OVER_SECONDS = 20.0  # before a node goes
CPU_HEADROOM = 0.1  # of a node's CPUs, left for thin trials (0.01 each) and the driver
LANE_THREAD = "lane-"  # what the names of threads that hold a worker group begin with
STOP_SECONDS = 30.0  # a lane that has not ended by then is left to Ray's own shutdown


@dataclass(frozen=True)
class LaneShape:
    """What one lane asks of the cluster."""

    num_workers: int
    cpus_per_worker: float
    gpus_per_worker: float = 0.0
    allowed_growth: MemoryLimit = field(default_factory=MemoryLimit)
    shares_cpus: bool = False
    """Whether a rank computes with its share of its node's CPUs, where that is more."""
    variables: tuple[str, ...] = ()
    """Names of variables of the driver's environment that ranks get besides the usual ones."""

    @property
    def num_threads(self) -> int:
        """Threads of one rank: its CPUs, at least one."""
        return max(1, round(self.cpus_per_worker))

    def threads_on(self, node: Mapping[str, float]) -> int:
        """Return the threads of one rank on a node: nodes of one study may be of several types."""
        if not self.shares_cpus:
            return self.num_threads
        ranks = ranks_on(node, self.cpus_per_worker, self.gpus_per_worker)
        share = (node.get("CPU", 0) - CPU_HEADROOM) / max(1, ranks)
        return max(self.num_threads, math.floor(share))

    def resources_per_worker(self) -> dict[str, float]:
        """Return what Ray places one rank by."""
        resources = {"CPU": self.cpus_per_worker}
        if self.gpus_per_worker:
            resources["GPU"] = self.gpus_per_worker
        return resources


def ranks_on(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    """Return how many ranks a node holds, by its resources, that ask for so many CPUs and GPUs."""
    by_cpu = math.floor(node.get("CPU", 0) / cpus + 1e-9)
    if not gpus:
        return by_cpu
    have = math.floor(node.get("GPU", 0))
    by_gpu = have * math.floor(1 / gpus + 1e-9) if gpus < 1 else math.floor(have / gpus + 1e-9)
    return min(by_cpu, by_gpu)


class WorkerGroups(Protocol):
    """Where lanes run: Ray's worker groups, or a stand-in for them in one process."""

    def run(self, lane: int) -> None:
        """Run a lane's worker group until it is sent home or retires.

        It is restarted where it loses a rank; what ends it for good is raised.
        """

    def resources(self) -> Sequence[tuple[str, float, float]]:
        """Return (name, what is free, what there is in all) of what ranks are placed by."""

    def lost_nodes(self) -> Collection[str]:
        """Return the ids of nodes that the cluster has lost."""

    def draining_nodes(self) -> Mapping[str, float]:
        """Return the nodes that are to go: id -> when, in Unix time; 0 where nobody says when."""

    def end(self) -> None:
        """Free what the groups share, once none of them runs any more."""


class Lanes:
    """All lanes of a study: start, call, stop. One instance owns one mailbox."""

    def __init__(
        self, shape: LaneShape, num_lanes: int, mailbox: MailboxClient, groups: WorkerGroups
    ) -> None:
        self.shape = shape
        self.num_lanes = num_lanes
        self.mailbox = mailbox
        self.errors: dict[int, BaseException] = {}  # lane -> what ended its worker group for good
        self._groups = groups
        self._threads: list[threading.Thread] = []
        self._nodes_released: set[str] = set()
        self._draining: set[str] = set()  # nodes that have been told to hand over
        self._lost: dict[int, int] = {}  # lane -> its lives when it lost its node
        self._added_at: list[float] = []  # when each lane that was added was, monotonic

    def place_on(self, nodes: Collection[str]) -> None:
        """Have worker groups that start from now on placed on these nodes alone, by their ids."""
        self.mailbox.place_on(nodes)

    def start(self) -> None:
        """Ask for every worker group at once; returns before they are up."""
        self._start(range(self.num_lanes))

    def add(self, count: int) -> None:
        """Ask for more worker groups."""
        first = self.num_lanes
        self.mailbox.add_lanes(count)
        self.num_lanes += count
        self._added_at += [time.monotonic()] * count
        self._start(range(first, self.num_lanes))

    def added_seconds(self) -> float:
        """Return for how long lanes that were added have been there, all of them together."""
        return sum(time.monotonic() - added_at for added_at in self._added_at)

    def _start(self, lanes: Iterable[int]) -> None:
        for lane in lanes:
            thread = threading.Thread(
                target=self._run_lane, args=(lane,), name=f"{LANE_THREAD}{lane}", daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def call(self, order: LaneOrder) -> Future[Answer]:
        """Send an order; the future has its answer."""
        return self.mailbox.send(order)

    def lives(self) -> list[int]:
        """Count each lane's worker groups that have asked for work: 0 not up yet, 2 once lost."""
        return self.mailbox.lives()

    def lanes_up(self) -> int:
        """Count the lanes that have come up."""
        return sum(life > 0 for life in self.lives())

    def lost(self) -> list[int]:
        """Return the lanes that have lost their node and are not back."""
        lives = self.lives() if self._lost else []
        return [lane for lane, before in self._lost.items() if lives[lane] <= before]

    def present(self) -> int:
        """Count the lanes that train or may soon: all but those that ended or lost their node."""
        return self.num_lanes - len(set(self.errors) | set(self.lost()))

    def wait_up(self, timeout_seconds: float, unless: Callable[[], bool]) -> int:
        """Wait for the first lane, every lane's failure or `unless`; return how many are up."""
        deadline = time.monotonic() + timeout_seconds
        while (up := self.lanes_up()) == 0 and time.monotonic() < deadline:
            if len(self.errors) == self.num_lanes or unless():
                break
            time.sleep(0.1)
        return up

    def release_lost(self) -> list[int]:
        """Let others carry out what lanes on lost nodes had; return those lanes."""
        lost = set(self._groups.lost_nodes()) - self._nodes_released
        self._nodes_released |= lost
        released = self.mailbox.release_lost(lost) if lost else []
        lives = self.lives() if released else []
        self._lost |= {lane: lives[lane] for lane in released}
        return released

    def leave_drained(self) -> list[int]:
        """Let lanes on nodes that are drained leave after their epoch; return those told just now.

        What isn't done shortly before its node goes is begun again by another lane.
        """
        draining = self._groups.draining_nodes()
        told, self._draining = set(draining) - self._draining, set(draining) | self._draining
        soon = time.time() + HAND_OVER_SECONDS
        late = {node for node, goes_at in draining.items() if 0 < goes_at < soon}
        lanes = self.mailbox.drain(told, "its node is drained") if told else []
        if late := late - self._nodes_released:
            self._nodes_released |= late
            self.mailbox.release_lost(late)
        return lanes

    def fail(self, reason: str) -> None:
        """Leave every order, waiting or to come, undone: the study is being stopped."""
        with contextlib.suppress(Exception):
            self.mailbox.fail(reason)

    def stop(self, patience_seconds: float = STOP_SECONDS) -> None:
        """Send the lanes home and wait for their worker groups and placement groups to go."""
        with contextlib.suppress(Exception):
            self.mailbox.close()
        deadline = time.monotonic() + patience_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            self._groups.end()
        self.mailbox.end()

    def retired(self) -> list[str]:
        """Return what was said of every worker group that was started anew between trials."""
        return self.mailbox.retired()

    def place_error(self, waited_seconds: float) -> str:
        """Say why no lane came up, with the numbers."""
        if self.errors:
            first = next(iter(self.errors.values()))
            return f"no worker group could start: {str(first).strip().splitlines()[-1]}"
        needs = self.shape.resources_per_worker()
        rows = self._groups.resources()
        have = ", ".join(f"{free:g} of {total:g} {name} free" for name, free, total in rows)
        need = " and ".join(f"{value:g} {name}" for name, value in needs.items())
        cure = "free some, or ask for less with --workers-per-trial, --gpus-per-trial or "
        cure += "--cpus-per-worker"
        if all(free >= needs.get(name, 0) * self.shape.num_workers for name, free, _ in rows):
            cure = "if a node has so much, its processes end as they start: raylet.err in Ray's "
            cure += "logs says why"
        return (
            f"no lane of {counted(self.shape.num_workers, 'rank')} came up in "
            f"{waited_seconds:.0f} s: a rank asks for {need}, the cluster has {have}; {cure}"
        )

    def _run_lane(self, lane: int) -> None:
        """Keep a worker group up; one that has retired is replaced when a trial wants it."""
        try:
            self._groups.run(lane)
            while self._wait_needed(lane):
                self._groups.run(lane)
        except Exception as error:
            self.errors[lane] = error
            with contextlib.suppress(Exception):  # a mailbox that is gone has no order either
                self.mailbox.end_lane(lane, str(error))

    def _wait_needed(self, lane: int) -> bool:
        """Wait until the lane is wanted again; raises PlanError where it has left for good."""
        if why := self.mailbox.departure_reason(lane):
            raise PlanError(why)
        return self.mailbox.wait_needed(lane)
