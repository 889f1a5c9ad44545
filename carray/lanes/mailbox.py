"""The mailbox between trials and lanes: orders in by trial, out to lanes, each answered once.

Plain asyncio; `mailbox_client.py` makes a Ray actor of it. One mailbox serves all lanes of a study,
so a trial needs no lane of its own: its next epoch goes to the lane that holds its state, and a new
trial to the first lane that holds nobody's.

A lane is W ranks. Every rank takes the same order, told apart by its sequence number; rank 0
answers. When a lane's worker group is restarted its ranks come back under a new incarnation and
get the unanswered order again; an order that was there for two incarnations' deaths is failed.
A lane whose node is lost may never come back: what it had goes to the lanes that are free, and
counts as no death of the order's making.
A group may also retire between two trials, when it holds no order: a new one takes its place as
soon as a trial looks for a lane. A lane that shares a GPU may leave for good when memory runs out:
another lane carries its order out, with more room. So may a lane whose node can't train, for want
of data say: that is no fault of the order, which is handed on as often as lanes are left. A lane
whose node is drained leaves after the order that it is at.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from carray.lanes.messages import Answer, LaneOrder

MAX_ATTEMPTS = 2  # worker groups that an order may kill before its trial is failed


@dataclass
class _PendingOrder:
    order: LaneOrder
    answer: asyncio.Future[Answer]
    attempts: int = 0
    reassigned: bool = False  # by a lane that left for want of memory


@dataclass
class _Lane:
    incarnation: str = ""
    restarts: int = 0
    sequence: int = 0
    current: _PendingOrder | None = None
    note: str = ""  # what a rank said before it died
    nodes: set[str] = field(default_factory=set)  # where the ranks of the newest incarnation are
    before: set[str] = field(default_factory=set)  # and those of the one before
    arrived: str = ""  # that incarnation
    left: str = ""  # why the lane has left for good
    unfit_nodes: tuple[str, ...] = ()  # those that it has left since they can't train
    home_of: str = ""  # the trial whose state the lane holds
    own: deque[_PendingOrder] = field(default_factory=deque)
    idle_since: float | None = None
    waited_seconds: float = 0.0  # with nothing to do since its last epoch, or since it came up


class Mailbox:
    """Orders for `num_lanes` lanes; methods are coroutines of one event loop."""

    def __init__(self, num_lanes: int) -> None:
        self._lanes = [_Lane() for _ in range(num_lanes)]
        self._shared: deque[_PendingOrder] = deque()
        self._changed = asyncio.Condition()
        self._closed = False
        self._broken = ""
        self._nodes: list[str] = []
        self._lost: set[str] = set()  # nodes
        self._retired: list[str] = []  # what was said of worker groups started anew

    async def call(self, order: LaneOrder) -> Answer:
        """Put an order in and wait for its answer."""
        if self._broken:
            return Answer(reason=self._broken)
        letter = _PendingOrder(order, asyncio.get_running_loop().create_future())
        async with self._changed:
            home = next((lane for lane in self._lanes if lane.home_of == order.trial), None)
            (home.own if home else self._shared).append(letter)
            self._changed.notify_all()
        return await letter.answer

    async def leave(self, trial: str) -> None:
        """Free the lane of a trial that was paused: its state is in its checkpoint."""
        async with self._changed:
            for lane in self._lanes:
                if lane.home_of == trial:
                    self._leave(lane)
            self._changed.notify_all()

    async def take(self, lane: int, incarnation: str, after: int) -> tuple[int, LaneOrder]:
        """Wait for the lane's next order; return (sequence, order) with sequence > `after`."""
        mine = self._lanes[lane]
        async with self._changed:
            if incarnation != mine.incarnation:
                self._restarted(mine, incarnation)
            while True:
                if self._closed or mine.left or incarnation != mine.incarnation:
                    return after + 1, LaneOrder("exit")
                if mine.current is None:
                    self._assign(mine)
                if mine.current is not None and mine.sequence > after:
                    return mine.sequence, mine.current.order
                await self._changed.wait()

    async def answer(self, lane: int, sequence: int, answer: Answer) -> None:
        """Take rank 0's answer to order `sequence`; a late or repeated one is dropped."""
        mine = self._lanes[lane]
        async with self._changed:
            if mine.current is None or sequence != mine.sequence:
                return
            complete = replace(answer, lane=lane, waited_seconds=mine.waited_seconds)
            self._close_current(mine, complete)
            if mine.left:  # the trial's next epoch is another's
                self._leave(mine)
            self._changed.notify_all()

    async def add_lanes(self, count: int) -> None:
        """Take more lanes, numbered on."""
        self._lanes += [_Lane() for _ in range(count)]

    async def place_on(self, nodes: Collection[str]) -> None:
        """Take the ids of the nodes that worker groups may be placed on."""
        self._nodes = list(nodes)

    async def nodes(self) -> list[str]:
        """Return those ids; none where any node will do."""
        return self._nodes

    async def arrive(self, lane: int, incarnation: str, node: str) -> None:
        """Note on which node a rank of the lane is; each rank says it before it takes orders."""
        mine = self._lanes[lane]
        if incarnation != mine.arrived:
            mine.arrived, mine.before, mine.nodes = incarnation, mine.nodes, set()
        mine.nodes.add(node)

    async def release_lost(self, nodes: Collection[str]) -> list[int]:
        """Let others carry out what lanes on lost nodes had; return those lanes."""
        async with self._changed:
            self._lost |= set(nodes)
            for lane in self._lanes:  # one that was back before its node was known to be lost
                if lane.current and lane.before & set(nodes):
                    lane.current.attempts -= 1
            lost = [
                number
                for number, lane in enumerate(self._lanes)
                if lane.incarnation and lane.nodes & set(nodes)
            ]
            for number in lost:
                self._orphan(self._lanes[number])
            self._changed.notify_all()
        return lost

    async def note(self, lane: int, reason: str) -> None:
        """Remember why a rank of the lane is about to end its worker group."""
        self._lanes[lane].note = reason

    async def retire(self, lane: int, why: str) -> None:
        """Let a worker group go between two trials; the next one is no restart after a death."""
        if self._lanes[lane].incarnation:  # of its ranks that have grown, the first to say so
            self._retired.append(f"lane {lane} {why}")
        self._lanes[lane].incarnation = ""

    async def retired(self) -> list[str]:
        """Return what was said of every worker group that retired so far."""
        return self._retired

    async def reassign(self, lane: int, sequence: int, why: str) -> bool:
        """Let a lane leave for good and others carry its order out; say whether it may.

        It may not if no other lane would be left, or if the order has made one leave before: then
        the trial itself is too large.
        """
        mine = self._lanes[lane]
        async with self._changed:
            letter = mine.current
            others = [each for each in self._lanes if each is not mine and not each.left]
            if letter is None or sequence != mine.sequence or letter.reassigned or not others:
                return False
            letter.reassigned = True
            mine.left = why
            self._orphan(mine)
            self._changed.notify_all()
            return True

    async def hand_over(self, lane: int, sequence: int, why: str) -> bool:
        """Let a lane whose node can't train leave for good, and others carry its order out.

        Say whether it may: not if it is the last one.
        """
        mine = self._lanes[lane]
        async with self._changed:
            others = [each for each in self._lanes if each is not mine and not each.left]
            if mine.left or mine.current is None or sequence != mine.sequence or not others:
                return bool(mine.left)  # another rank has said it
            self._part(mine, why)
            return True

    async def depart(self, lane: int, why: str) -> None:
        """Let a lane leave for good before its first order: its node can't train."""
        async with self._changed:
            self._part(self._lanes[lane], why)

    async def end_lane(self, lane: int, why: str) -> None:
        """Let others carry out what a lane had whose worker group can't be started again."""
        mine = self._lanes[lane]
        async with self._changed:
            mine.left = mine.left or why
            self._orphan(mine)
            self._changed.notify_all()

    async def drain(self, nodes: Collection[str], why: str) -> list[int]:
        """Let the lanes on nodes leave for good, after the order that they are at; return them."""
        async with self._changed:
            found = [
                number
                for number, lane in enumerate(self._lanes)
                if lane.nodes & set(nodes) and not lane.left
            ]
            for lane in map(self._lanes.__getitem__, found):
                lane.left = why
                if lane.current is None:
                    self._leave(lane)
            self._changed.notify_all()
        return found

    async def unfit_nodes(self) -> list[tuple[list[str], str]]:
        """Return the nodes of each lane that has left since they can't train, and why."""
        return [(list(lane.unfit_nodes), lane.left) for lane in self._lanes if lane.unfit_nodes]

    async def departure_reason(self, lane: int) -> str:
        """Return why the lane has left for good; "" where it has not."""
        return self._lanes[lane].left

    async def wait_needed(self, lane: int) -> bool:
        """Wait until a trial looks for a lane; False where the lane is not to start again."""
        mine = self._lanes[lane]
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._closed or self._broken or mine.left or self._shared
            )
            return not (self._closed or self._broken or mine.left or mine.incarnation)

    async def fail(self, reason: str) -> None:
        """Leave every order, waiting or to come, undone for this reason."""
        async with self._changed:
            self._broken = reason
            letters = [*self._shared, *(letter for lane in self._lanes for letter in lane.own)]
            letters += [lane.current for lane in self._lanes if lane.current]
            for letter in letters:
                if not letter.answer.done():
                    letter.answer.set_result(Answer(reason=reason))
            self._changed.notify_all()

    async def close(self) -> None:
        """Send every lane home; what is unanswered stays unanswered."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    async def lives(self) -> list[int]:
        """Count the worker groups of each lane that have asked for an order so far."""
        return [lane.restarts + bool(lane.incarnation) for lane in self._lanes]

    def _part(self, lane: _Lane, why: str) -> None:
        lane.left, lane.unfit_nodes = why, tuple(sorted(lane.nodes))
        self._orphan(lane)
        self._changed.notify_all()

    def _orphan(self, lane: _Lane) -> None:
        letter, lane.current = lane.current, None
        lane.incarnation, lane.nodes = "", set()
        self._leave(lane)
        if letter is not None:
            self._shared.appendleft(letter)

    def _restarted(self, lane: _Lane, incarnation: str) -> None:
        lane.restarts += bool(lane.incarnation)
        lane.incarnation = incarnation
        lane.idle_since = time.monotonic()
        lane.waited_seconds = 0.0
        if lane.current is None or lane.before & self._lost:
            return
        lane.current.attempts += 1
        if lane.current.attempts >= MAX_ATTEMPTS:
            cause = lane.note or "look for the cause in Ray's worker logs"
            kind = lane.current.order.kind
            reason = f"its {kind} ended the worker group {MAX_ATTEMPTS} times: {cause}"
            self._close_current(lane, Answer("failed", reason))

    def _assign(self, lane: _Lane) -> None:
        if lane.own:
            lane.current = lane.own.popleft()
        elif self._shared and not lane.home_of:
            lane.current = self._shared.popleft()
            lane.home_of = lane.current.order.trial
            self._move_to_home(lane)
        else:
            return
        lane.sequence += 1
        now = time.monotonic()
        lane.waited_seconds += now - (lane.idle_since or now)
        self._changed.notify_all()

    def _move_to_home(self, lane: _Lane) -> None:
        """Bring the trial's other shared orders to the lane that now holds it."""
        following = [letter for letter in self._shared if letter.order.trial == lane.home_of]
        for letter in following:
            self._shared.remove(letter)
            lane.own.append(letter)

    def _close_current(self, lane: _Lane, answer: Answer) -> None:
        letter = lane.current
        assert letter is not None
        lane.current = None
        lane.idle_since = time.monotonic()
        if letter.order.kind == "epoch":
            lane.waited_seconds = 0.0
        if not letter.answer.done():
            letter.answer.set_result(answer)
        if letter.order.ends_trial:
            self._leave(lane)

    def _leave(self, lane: _Lane) -> None:
        lane.home_of = ""
        while lane.own:  # orders that came meanwhile find a lane anew
            self._shared.appendleft(lane.own.pop())
