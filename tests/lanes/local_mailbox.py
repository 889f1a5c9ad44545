"""The real mailbox without Ray: on an event loop in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from carray.lanes.mailbox import Mailbox
from carray.lanes.messages import Answer, LaneOrder


class LocalMailbox:
    """The real `Mailbox` on an event loop in a thread; see `MailboxClient`."""

    def __init__(self, num_lanes: int) -> None:
        self._box = Mailbox(num_lanes)
        self._loop = asyncio.new_event_loop()
        self._lock = threading.Lock()
        self._is_over = False
        self._answers = ThreadPoolExecutor(1)
        self._gone: set[str] = set()  # worker groups that have lost a rank
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __deepcopy__(self, memo: Any) -> LocalMailbox:
        return self  # as a copy of an actor's handle is the same actor

    def send(self, order: LaneOrder) -> Future[Answer]:
        """Put an order in; as with Ray, whoever waits for its answer may ask for more then."""
        told: Future[Answer] = Future()
        asked = self._begin(self._box.call(order))
        asked.add_done_callback(lambda asked: self._tell(asked, told))
        return told

    def _tell(self, asked: Future[Answer], told: Future[Answer]) -> None:
        if asked.cancelled():
            self._answers.submit(told.set_exception, MailboxOver("the mailbox has ended"))
        else:
            self._answers.submit(told.set_result, asked.result())

    def call(self, order: LaneOrder) -> Answer:
        return self.send(order).result()

    def leave(self, trial: str) -> None:
        self._ask(self._box.leave(trial), None)

    def take(self, lane: int, incarnation: str, after: int) -> tuple[int, LaneOrder]:
        home = after + 1, LaneOrder("exit")

        async def take() -> tuple[int, LaneOrder]:
            if incarnation in self._gone:
                return home
            return await self._box.take(lane, incarnation, after)

        return self._ask(take(), home)

    def answer(self, lane: int, sequence: int, answer: Answer) -> None:
        self._ask(self._box.answer(lane, sequence, answer), None)

    def add_lanes(self, count: int) -> None:
        self._ask(self._box.add_lanes(count), None)

    def place_on(self, nodes: Collection[str]) -> None:
        self._ask(self._box.place_on(nodes), None)

    def nodes(self) -> list[str]:
        return list(self._ask(self._box.nodes(), []))

    def arrive(self, lane: int, incarnation: str, node: str) -> None:
        self._ask(self._box.arrive(lane, incarnation, node), None)

    def release_lost(self, nodes: Collection[str]) -> list[int]:
        return list(self._ask(self._box.release_lost(nodes), []))

    def note(self, lane: int, reason: str) -> None:
        self._ask(self._box.note(lane, reason), None)

    def retire(self, lane: int, why: str) -> None:
        self._ask(self._box.retire(lane, why), None)

    def retired(self) -> list[str]:
        return self._begin(self._box.retired()).result()

    def reassign(self, lane: int, sequence: int, why: str) -> bool:
        return self._ask(self._box.reassign(lane, sequence, why), False)

    def hand_over(self, lane: int, sequence: int, why: str) -> bool:
        return self._ask(self._box.hand_over(lane, sequence, why), False)

    def depart(self, lane: int, why: str) -> None:
        self._ask(self._box.depart(lane, why), None)

    def drain(self, nodes: Collection[str], why: str) -> list[int]:
        return list(self._ask(self._box.drain(nodes, why), []))

    def unfit_nodes(self) -> list[tuple[list[str], str]]:
        return list(self._ask(self._box.unfit_nodes(), []))

    def departure_reason(self, lane: int) -> str:
        return self._ask(self._box.departure_reason(lane), "")

    def wait_needed(self, lane: int) -> bool:
        return self._ask(self._box.wait_needed(lane), False)

    def lives(self) -> list[int]:
        return self._begin(self._box.lives()).result()

    def fail(self, reason: str) -> None:
        self._begin(self._box.fail(reason)).result()

    def close(self) -> None:
        self._begin(self._box.close()).result()

    def end(self) -> None:
        """Cut off whoever still waits for something, as an actor's end does."""
        with self._lock:
            if self._is_over:
                return
            self._is_over = True
        asyncio.run_coroutine_threadsafe(self._cut_off(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._answers.shutdown(wait=False)

    def forget(self, incarnation: str) -> None:
        """Give no more orders to a group that has lost a rank: Ray Train kills the others."""
        self._gone.add(incarnation)

    async def _cut_off(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _ask(self, question: Coroutine[Any, Any, Any], where_over: Any) -> Any:
        try:
            return self._begin(question).result()
        except (CancelledError, MailboxOver):
            return where_over

    def _begin(self, question: Coroutine[Any, Any, Any]) -> Future[Any]:
        with self._lock:
            if not self._is_over:
                return asyncio.run_coroutine_threadsafe(question, self._loop)
        question.close()
        raise MailboxOver("the mailbox has ended")


class MailboxOver(RuntimeError):
    """Asked of a mailbox that has ended."""
