"""Ctrl-C and SIGTERM: the first ends a study gently, the second one ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import NoReturn

import psutil

from carray.errors import EXIT_INTERRUPTED
from carray.interrupts import importer, send_again

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHOW_CURSOR = b"\x1b[?25h\n"
PATIENCE_SECONDS = 0.2


class Interrupts:
    """What a signal does while a study runs; does nothing outside the main thread.

    The first one calls the current phase's `stop` in a thread of its own, since a signal may come
    in the middle of any call to Ray; in a phase without one it raises KeyboardInterrupt. The second
    one ends the process and the Ray that it started.

    A signal to all processes of a job, as Slurm and `timeout` send it, ends that Ray as well.
    """

    def __init__(self) -> None:
        self.name = ""  # of the signal that came first
        self._came = threading.Event()
        self._stop: Callable[[str], None] | None = None
        self._in_main = threading.current_thread() is threading.main_thread()

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Take both signals, and give them back at the end."""
        if not self._in_main:
            yield
            return
        handlers = [(number, signal.getsignal(number)) for number in SIGNALS]
        self.take()
        try:
            yield
        finally:
            for number, handler in handlers:
                signal.signal(number, handler)

    def take(self) -> None:
        """Take both signals, again where another has taken them: `ray.init` does."""
        if self._in_main:
            for number in SIGNALS:
                signal.signal(number, self._handle)

    @contextlib.contextmanager
    def gently(self, stop: Callable[[str], None]) -> Iterator[None]:
        """Let the first signal call `stop(its name)` while this phase lasts."""
        self._stop = stop
        try:
            yield
        finally:
            self._stop = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._stop is None and importer(frame) and not self.name:
            send_again(number)
            return
        if self.name:
            end_at_once(EXIT_INTERRUPTED)
        self.name = signal.Signals(number).name
        self._came.set()
        if self._stop is None:
            raise KeyboardInterrupt(self.name)
        threading.Thread(target=self._stop, args=(self.name,), daemon=True).start()

    def awaited(self) -> str:
        """Return the name of the signal that came, or comes in a moment; else nothing."""
        self._came.wait(PATIENCE_SECONDS)
        return self.name


def end_at_once(exit_code: int, known: Iterable[psutil.Process] | None = None) -> NoReturn:
    """End this process and all below it; `known` are those that don't end with it or with Ray.

    Who knows them saves the look at all processes, in which a Ray that has died may end this one.
    """
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), SHOW_CURSOR)
    for each in psutil.Process().children(recursive=True) if known is None else known:
        with contextlib.suppress(psutil.Error):
            each.kill()
    os._exit(exit_code)
