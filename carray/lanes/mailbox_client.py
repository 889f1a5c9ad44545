"""Client of the mailbox, for those who send orders and for lanes: its interface, and Ray's.

`RayMailbox` reaches the mailbox that is a Ray actor, from any process of the cluster; it is pickled
with what it is given to. Imports no torch, so that a thin trial starts fast.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from carray.lanes.mailbox import Mailbox
from carray.lanes.messages import Answer, LaneOrder

MAILBOX_ENDED = "the process that hands trials to lanes has ended"
ANSWER_SECONDS = 30.0  # for what is told when a study ends: the mailbox may be gone


class MailboxClient(Protocol):
    """`Mailbox`, called from threads: every method but `send` and `leave` waits for its answer."""

    def send(self, order: LaneOrder) -> Future[Answer]:
        """Put an order in; the future has its answer."""

    def call(self, order: LaneOrder) -> Answer:
        """Put an order in and wait for its answer."""

    def leave(self, trial: str) -> None:
        """Free the lane of a trial that was paused."""

    def take(self, lane: int, incarnation: str, after: int) -> tuple[int, LaneOrder]:
        """Wait for the lane's next order; `exit` where the study is over."""

    def answer(self, lane: int, sequence: int, answer: Answer) -> None:
        """Answer order `sequence`."""

    def add_lanes(self, count: int) -> None:
        """Take more lanes, numbered on."""

    def place_on(self, nodes: Collection[str]) -> None:
        """Say on which nodes worker groups may be placed, by their ids."""

    def nodes(self) -> list[str]:
        """Return those ids; none where any node will do."""

    def arrive(self, lane: int, incarnation: str, node: str) -> None:
        """Say on which node a rank of the lane is."""

    def release_lost(self, nodes: Collection[str]) -> list[int]:
        """Let others carry out what lanes on lost nodes had; return those lanes."""

    def note(self, lane: int, reason: str) -> None:
        """Say why a rank of the lane is about to end its worker group."""

    def retire(self, lane: int, why: str) -> None:
        """Let a worker group go between two trials."""

    def retired(self) -> list[str]:
        """Return what was said of every worker group that retired so far."""

    def reassign(self, lane: int, sequence: int, why: str) -> bool:
        """Let a lane leave for good and others carry its order out; say whether it may."""

    def hand_over(self, lane: int, sequence: int, why: str) -> bool:
        """Let a lane whose node can't train leave, its order to others; say whether it may."""

    def depart(self, lane: int, why: str) -> None:
        """Let a lane leave for good before its first order: its node can't train."""

    def drain(self, nodes: Collection[str], why: str) -> list[int]:
        """Let the lanes on nodes leave, after the order that they are at; return them."""

    def unfit_nodes(self) -> list[tuple[list[str], str]]:
        """Return the nodes of each lane that has left since they can't train, and why."""

    def departure_reason(self, lane: int) -> str:
        """Return why the lane has left for good; "" where it has not."""

    def wait_needed(self, lane: int) -> bool:
        """Wait until a trial looks for a lane; False where the lane is not to start again."""

    def lives(self) -> list[int]:
        """Count the worker groups of each lane that have asked for an order so far."""

    def fail(self, reason: str) -> None:
        """Leave every order, waiting or to come, undone for this reason."""

    def close(self) -> None:
        """Send every lane home."""

    def end(self) -> None:
        """End the mailbox; nobody asks it for anything any more."""


class RayMailbox:
    """The mailbox of a study, an actor; see `MailboxClient` and `Mailbox`."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def begun(cls, num_lanes: int) -> RayMailbox:
        """Start the actor, on this process's node: no other one's end takes the study along."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_concurrency": 10_000, "max_restarts": 0}
        actor = ray.remote(Mailbox).options(**options, scheduling_strategy=here)
        return cls(actor.remote(num_lanes))

    def send(self, order: LaneOrder) -> Future[Answer]:
        """Put an order in; the future has its answer, `MAILBOX_ENDED` where the actor is gone."""
        answered: Future[Answer] = Future()
        asked = self._actor.call.remote(order).future()
        asked.add_done_callback(lambda done: answered.set_result(_answer_of(done.result)))
        return answered

    def call(self, order: LaneOrder) -> Answer:
        """Put an order in and wait for its answer."""
        return _answer_of(lambda: ray.get(self._actor.call.remote(order)))

    def leave(self, trial: str) -> None:
        """Free the lane of a trial that was paused, without waiting for it."""
        self._actor.leave.remote(trial)

    def take(self, lane: int, incarnation: str, after: int) -> tuple[int, LaneOrder]:
        """Wait for the lane's next order."""
        try:
            sequence, order = ray.get(self._actor.take.remote(lane, incarnation, after))
        except ray.exceptions.RayActorError:
            return after + 1, LaneOrder("exit")  # the study could not wait for this lane
        return sequence, order

    def answer(self, lane: int, sequence: int, answer: Answer) -> None:
        """Answer order `sequence`."""
        ray.get(self._actor.answer.remote(lane, sequence, answer))

    def add_lanes(self, count: int) -> None:
        """Take more lanes, numbered on."""
        ray.get(self._actor.add_lanes.remote(count))

    def place_on(self, nodes: Collection[str]) -> None:
        """Say on which nodes worker groups may be placed, by their ids."""
        ray.get(self._actor.place_on.remote(list(nodes)))

    def nodes(self) -> list[str]:
        """Return those ids; none where any node will do."""
        return list(ray.get(self._actor.nodes.remote()))

    def arrive(self, lane: int, incarnation: str, node: str) -> None:
        """Say on which node a rank of the lane is."""
        self._actor.arrive.remote(lane, incarnation, node)

    def release_lost(self, nodes: Collection[str]) -> list[int]:
        """Let others carry out what lanes on lost nodes had; return those lanes."""
        return list(ray.get(self._actor.release_lost.remote(list(nodes))))

    def note(self, lane: int, reason: str) -> None:
        """Say why a rank of the lane is about to end its worker group."""
        ray.get(self._actor.note.remote(lane, reason))

    def retire(self, lane: int, why: str) -> None:
        """Let a worker group go between two trials."""
        ray.get(self._actor.retire.remote(lane, why))

    def retired(self) -> list[str]:
        """Return what was said of every worker group that retired so far."""
        return list(ray.get(self._actor.retired.remote()))

    def reassign(self, lane: int, sequence: int, why: str) -> bool:
        """Let a lane leave for good and others carry its order out; say whether it may."""
        return bool(ray.get(self._actor.reassign.remote(lane, sequence, why)))

    def hand_over(self, lane: int, sequence: int, why: str) -> bool:
        """Let a lane whose node can't train leave, its order to others; say whether it may."""
        return bool(ray.get(self._actor.hand_over.remote(lane, sequence, why)))

    def depart(self, lane: int, why: str) -> None:
        """Let a lane leave for good before its first order: its node can't train."""
        ray.get(self._actor.depart.remote(lane, why))

    def drain(self, nodes: Collection[str], why: str) -> list[int]:
        """Let the lanes on nodes leave, after the order that they are at; return them."""
        return list(ray.get(self._actor.drain.remote(list(nodes), why)))

    def unfit_nodes(self) -> list[tuple[list[str], str]]:
        """Return the nodes of each lane that has left since they can't train, and why."""
        return list(ray.get(self._actor.unfit_nodes.remote()))

    def departure_reason(self, lane: int) -> str:
        """Return why the lane has left for good; "" where it has not, or the study is over."""
        try:
            return str(ray.get(self._actor.departure_reason.remote(lane)))
        except ray.exceptions.RayActorError:
            return ""

    def wait_needed(self, lane: int) -> bool:
        """Wait until a trial looks for a lane; False where the study is over."""
        try:
            return bool(ray.get(self._actor.wait_needed.remote(lane)))
        except ray.exceptions.RayActorError:
            return False

    def lives(self) -> list[int]:
        """Count the worker groups of each lane that have asked for an order so far."""
        return list(ray.get(self._actor.lives.remote()))

    def fail(self, reason: str) -> None:
        """Leave every order, waiting or to come, undone for this reason."""
        ray.get(self._actor.fail.remote(reason), timeout=ANSWER_SECONDS)

    def close(self) -> None:
        """Send every lane home."""
        ray.get(self._actor.close.remote(), timeout=ANSWER_SECONDS)

    def end(self) -> None:
        """End the actor."""
        ray.kill(self._actor)


def _answer_of(asked: Callable[[], Answer]) -> Answer:
    """Return an answer; an order whose mailbox is gone was left undone."""
    try:
        return asked()
    except ray.exceptions.RayActorError:
        return Answer(reason=MAILBOX_ENDED)
