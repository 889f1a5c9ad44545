"""Images of many requests, answered together: a bounded queue and one thread that empties it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from carray.errors import counted
from carray.serving.limits import Limits, Refused

ImageT = TypeVar("ImageT")
AnswerT = TypeVar("AnswerT")


class Batcher(Generic[ImageT, AnswerT]):
    """Answers images in batches, in the order in which they came.

    `answer` takes a batch and returns one answer each; it runs in the batcher's own thread alone.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[ImageT]], Sequence[AnswerT]],
        limits: Limits,
        on_batch: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self._answer, self._limits, self._on_batch = answer, limits, on_batch
        self._queue: queue.SimpleQueue[tuple[ImageT, Future[AnswerT]] | None] = queue.SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images that wait or are being answered."""
        return self._waiting

    def submit(self, images: Sequence[ImageT]) -> list[Future[AnswerT]]:
        """Queue the images of one request, all of them or none.

        Raises:
            Refused: 429 where too many wait already.
        """
        with self._lock:
            if self._waiting and self._waiting + len(images) > self._limits.waiting:
                raise Refused(
                    429,
                    f"{counted(self._waiting, 'image waits', 'images wait')} already: try again",
                    self._limits.retry_after_seconds,
                )
            if self._closed:
                raise Refused(503, "this version has been replaced: try again", 1)
            futures: list[Future[AnswerT]] = [Future() for _ in images]
            self._waiting += len(images)
            for pair in zip(images, futures, strict=True):
                self._queue.put(pair)
        return futures

    def close(self) -> None:
        """Answer what waits, then end the thread; takes no more."""
        with self._lock:
            self._closed = True
            self._queue.put(None)

    def join(self, seconds: float | None = None) -> None:
        """Wait for the thread's end, after `close`."""
        self._thread.join(seconds)

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._gather()
            if batch:
                self._settle(batch)

    def _gather(self) -> tuple[list[tuple[ImageT, Future[AnswerT]]], bool]:
        """Return the next batch, and whether more may come."""
        first = self._queue.get()
        if first is None:
            return [], False
        batch, until = [first], time.monotonic() + self._limits.batch_wait_seconds
        while len(batch) < self._limits.batch:
            try:
                following = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if following is None:
                return batch, False
            batch.append(following)
        return batch, True

    def _settle(self, batch: list[tuple[ImageT, Future[AnswerT]]]) -> None:
        start = time.perf_counter()
        try:
            answers = self._answer([image for image, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)
        except Exception as error:  # whoever waits hears of it; the next batch is another's
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        with self._lock:
            self._waiting -= len(batch)
        self._on_batch(len(batch), time.perf_counter() - start)
