"""The real mailbox without Ray: on an event loop in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from carray.lanes.mailbox import Mailbox
from carray.lanes.mailbox_client import MailboxClient
from carray.lanes.messages import Answer, LaneOrder

NEEDED = ("retired", "lives", "fail", "close")  # raise where the mailbox is over
LISTS = ("nodes", "release_lost", "drain", "unfit_nodes")


class LocalMailbox(MailboxClient):
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
        asked.add_done_callback(lambda asked: self._settle(asked, told))
        return told

    def _settle(self, asked: Future[Answer], told: Future[Answer]) -> None:
        if asked.cancelled():
            self._answers.submit(told.set_exception, MailboxOver("the mailbox has ended"))
        else:
            self._answers.submit(told.set_result, asked.result())

    def take(self, lane: int, incarnation: str, after: int) -> tuple[int, LaneOrder]:
        home = after + 1, LaneOrder("exit")

        async def take() -> tuple[int, LaneOrder]:
            if incarnation in self._gone:
                return home
            return await self._box.take(lane, incarnation, after)

        try:
            return self._begin(take()).result()
        except (CancelledError, MailboxOver):
            return home

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

    def _ask(self, method: str, *arguments: Any) -> Any:
        question = getattr(self._box, method)(*arguments)
        if method in NEEDED:
            return self._begin(question).result()
        try:
            return self._begin(question).result()
        except (CancelledError, MailboxOver):
            return () if method in LISTS else ""

    _tell = _ask

    def _begin(self, question: Coroutine[Any, Any, Any]) -> Future[Any]:
        with self._lock:
            if not self._is_over:
                return asyncio.run_coroutine_threadsafe(question, self._loop)
        question.close()
        raise MailboxOver("the mailbox has ended")


class MailboxOver(RuntimeError):
    """Asked of a mailbox that has ended."""
