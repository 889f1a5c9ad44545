"""`Uploads`: carries files to a URL aside from the work that makes them, in the order asked.

A failure is tried again for as long as the work lasts; nobody waits for it. What is asked for again
before it went is carried once, as it is then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from carray.errors import CarrayError, first_cause

# pauses after failures, then the last again and again: what isn't there when a machine is lost is
# trained again, so a store that is back is used at once
RETRY_SECONDS = (0.5, 1.0)
FAILING_SECONDS = 20.0  # what closing waits for a URL that refuses everything


class Uploads:
    """One queue, one thread; a task has a name, under which it is said to be missing.

    Args:
        name: of the queue.
        say: is told when the URL stops taking files, and when it takes them again.
        failing: the names of queues that fail; those that share it say so once.
    """

    def __init__(
        self, name: str, say: Callable[[str], None], failing: set[str] | None = None
    ) -> None:
        self._name, self._say = name, say
        self._failing = set() if failing is None else failing
        self._tasks: dict[str, Callable[[], None]] = {}
        self._busy = ""  # the task that is being carried out
        self._wake = threading.Condition()
        self._closing = False
        self._dropped = False
        self._failures = 0
        self._worked_at = time.monotonic()  # when a task last succeeded
        self._thread = threading.Thread(target=self._work, name=f"uploads-{name}", daemon=True)

    def put(self, name: str, task: Callable[[], None]) -> None:
        """Have `task` carried out after all that waits; one of that name keeps its place."""
        with self._wake:
            if self._dropped:
                return
            self._tasks[name] = task
            if not self._thread.is_alive() and not self._closing:
                self._thread.start()
            self._wake.notify_all()

    def left(self) -> list[str]:
        """Return the names of the tasks that aren't done."""
        with self._wake:
            return [*([self._busy] if self._busy else []), *self._tasks]

    def drop(self, why: str) -> None:
        """Carry out nothing more; say why."""
        with self._wake:
            self._tasks.clear()
            self._closing = self._dropped = True
            self._wake.notify_all()
        if why:
            self._say(why)

    def close(self) -> list[str]:
        """Wait until all is carried, or nothing can be; return the names of what is not."""
        with self._wake:
            self._closing = True
            self._worked_at = time.monotonic()
            self._wake.notify_all()
        while self._thread.is_alive() and not self._is_vain():
            self._thread.join(0.1)
        return self.left()

    def _is_vain(self) -> bool:
        return self._failures > 0 and time.monotonic() - self._worked_at > FAILING_SECONDS

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._tasks or self._closing)
                if not self._tasks:
                    return
                self._busy = next(iter(self._tasks))
                task = self._tasks.pop(self._busy)
            error = _failure(task)
            with self._wake:
                self._busy, name = "", self._busy
                if self._dropped:
                    return
                if error:  # first again: the order is part of the promise
                    self._tasks = {name: task, **self._tasks}
            self._note(error)
            if error:
                self._pause()

    def _note(self, error: Exception | None) -> None:
        is_first = not self._failing
        if error is None:
            self._failing.discard(self._name)
            if not (is_first or self._failing):
                self._say("uploads go on")
            self._failures, self._worked_at = 0, time.monotonic()
            return
        self._failures += 1
        self._failing.add(self._name)
        if is_first:
            self._say(f"an upload failed, and is tried again: {_told(error)}")

    def _pause(self) -> None:
        pause = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS)) - 1]
        with self._wake:
            if self._wake.wait_for(lambda: self._closing, pause):
                self._wake.wait(pause)


def _failure(task: Callable[[], None]) -> Exception | None:
    """Carry out a task; return what went wrong. A file that is gone is no failure."""
    try:
        task()
    except FileNotFoundError:
        return None
    except Exception as error:  # work goes on whatever a store says
        return error
    return None


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, CarrayError) else first_cause(error)
