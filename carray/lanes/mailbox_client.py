"""Client of the mailbox, for those who send orders and for lanes: what it asks, and how Ray does.

`RayMailbox` reaches the mailbox that is a Ray actor, from any process of the cluster; it is pickled
with what it is given to. Imports no torch, so that a thin trial starts fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import ray

from carray.lanes.mailbox import Mailbox
from carray.lanes.messages import Answer, LaneOrder
from carray.lanes.this_node import on_this_node

MAILBOX_ENDED = "the process that hands trials to lanes has ended"
PATIENCE_SECONDS = {"fail": 30.0, "close": 30.0}  # when a study ends the mailbox may be gone


class MailboxClient(ABC):
    """`Mailbox`, called from threads: all but `send`, `leave` and `arrive` wait for its answer."""

    @abstractmethod
    def _ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the mailbox; return what it returns."""

    @abstractmethod
    def _tell(self, method: str, *arguments: Any) -> None:
        """Call a method of the mailbox without waiting for it."""

    @abstractmethod
    def send(self, order: LaneOrder) -> Future[Answer]:
        """Put an order in; the future has its answer, `MAILBOX_ENDED` where the mailbox is gone."""

    @abstractmethod
    def end(self) -> None:
        """End the mailbox; nobody asks it for anything any more."""

    def call(self, order: LaneOrder) -> Answer:
        """Put an order in and wait for its answer."""
        return self.send(order).result()

    def leave(self, trial: str) -> None:
        """Free the lane of a trial that was paused."""
        self._tell("leave", trial)

    def take(self, lane: int, incarnation: str, after: int) -> tuple[int, LaneOrder]:
        """Wait for the lane's next order; `exit` where the study is over."""
        sequence, order = self._ask("take", lane, incarnation, after)
        return sequence, order

    def answer(self, lane: int, sequence: int, answer: Answer) -> None:
        """Answer order `sequence`."""
        self._ask("answer", lane, sequence, answer)

    def add_lanes(self, count: int) -> None:
        """Take more lanes, numbered on."""
        self._ask("add_lanes", count)

    def place_on(self, nodes: Collection[str]) -> None:
        """Say on which nodes worker groups may be placed, by their ids."""
        self._ask("place_on", list(nodes))

    def nodes(self) -> list[str]:
        """Return those ids; none where any node will do."""
        return list(self._ask("nodes"))

    def arrive(self, lane: int, incarnation: str, node: str) -> None:
        """Say on which node a rank of the lane is."""
        self._tell("arrive", lane, incarnation, node)

    def release_lost(self, nodes: Collection[str]) -> list[int]:
        """Let others carry out what lanes on lost nodes had; return those lanes."""
        return list(self._ask("release_lost", list(nodes)))

    def note(self, lane: int, reason: str) -> None:
        """Say why a rank of the lane is about to end its worker group."""
        self._ask("note", lane, reason)

    def retire(self, lane: int, why: str) -> None:
        """Let a worker group go between two trials."""
        self._ask("retire", lane, why)

    def retired(self) -> list[str]:
        """Return what was said of every worker group that retired so far."""
        return list(self._ask("retired"))

    def reassign(self, lane: int, sequence: int, why: str) -> bool:
        """Let a lane leave for good and others carry its order out; say whether it may."""
        return bool(self._ask("reassign", lane, sequence, why))

    def hand_over(self, lane: int, sequence: int, why: str) -> bool:
        """Let a lane whose node can't train leave, its order to others; say whether it may."""
        return bool(self._ask("hand_over", lane, sequence, why))

    def depart(self, lane: int, why: str) -> None:
        """Let a lane leave for good before its first order: its node can't train."""
        self._ask("depart", lane, why)

    def end_lane(self, lane: int, why: str) -> None:
        """Let others carry out what a lane had whose worker group can't be started again."""
        self._ask("end_lane", lane, why)

    def drain(self, nodes: Collection[str], why: str) -> list[int]:
        """Let the lanes on nodes leave, after the order that they are at; return them."""
        return list(self._ask("drain", list(nodes), why))

    def unfit_nodes(self) -> list[tuple[list[str], str]]:
        """Return the nodes of each lane that has left since they can't train, and why."""
        return list(self._ask("unfit_nodes"))

    def departure_reason(self, lane: int) -> str:
        """Return why the lane has left for good; "" where it has not, or the study is over."""
        return str(self._ask("departure_reason", lane))

    def wait_needed(self, lane: int) -> bool:
        """Wait until a trial looks for a lane; False where the lane is not to start again."""
        return bool(self._ask("wait_needed", lane))

    def lives(self) -> list[int]:
        """Count the worker groups of each lane that have asked for an order so far."""
        return list(self._ask("lives"))

    def fail(self, reason: str) -> None:
        """Leave every order, waiting or to come, undone for this reason."""
        self._ask("fail", reason)

    def close(self) -> None:
        """Send every lane home."""
        self._ask("close")


class RayMailbox(MailboxClient):
    """The mailbox of a study, an actor; lanes that ask one that is gone hear that all is over."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def begun(cls, num_lanes: int) -> RayMailbox:
        """Start the actor, on this process's node: no other one's end takes the study along."""
        options = {"num_cpus": 0, "max_concurrency": 10_000, "max_restarts": 0}
        actor = ray.remote(Mailbox).options(**options, scheduling_strategy=on_this_node())
        return cls(actor.remote(num_lanes))

    def _ask(self, method: str, *arguments: Any) -> Any:
        asked = getattr(self._actor, method).remote(*arguments)
        return ray.get(asked, timeout=PATIENCE_SECONDS.get(method))

    def _tell(self, method: str, *arguments: Any) -> None:
        getattr(self._actor, method).remote(*arguments)

    def send(self, order: LaneOrder) -> Future[Answer]:
        """Put an order in; the future has its answer, `MAILBOX_ENDED` where the actor is gone."""
        answered: Future[Answer] = Future()
        asked = self._actor.call.remote(order).future()
        asked.add_done_callback(lambda done: answered.set_result(_answer_of(done.result)))
        return answered

    def call(self, order: LaneOrder) -> Answer:
        """Put an order in and wait for its answer, on this thread alone."""
        return _answer_of(lambda: ray.get(self._actor.call.remote(order)))

    def take(self, lane: int, incarnation: str, after: int) -> tuple[int, LaneOrder]:
        """Wait for the lane's next order; `exit` where the study is over."""
        with suppress(ray.exceptions.RayActorError):
            return super().take(lane, incarnation, after)
        return after + 1, LaneOrder("exit")

    def departure_reason(self, lane: int) -> str:
        """Return why the lane has left for good; "" where it has not, or the study is over."""
        with suppress(ray.exceptions.RayActorError):
            return super().departure_reason(lane)
        return ""

    def wait_needed(self, lane: int) -> bool:
        """Wait until a trial looks for a lane; False where the lane is not to start again."""
        with suppress(ray.exceptions.RayActorError):
            return super().wait_needed(lane)
        return False

    def end(self) -> None:
        """End the actor."""
        ray.kill(self._actor)


def _answer_of(asked: Callable[[], Answer]) -> Answer:
    """Return an answer; an order whose mailbox is gone was left undone."""
    try:
        return asked()
    except ray.exceptions.RayActorError:
        return Answer(reason=MAILBOX_ENDED)
