"""Ctrl-C and SIGTERM: the first ends a study gently, the second one ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
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
    """

    def __init__(self) -> None:
        self.name = ""  # of the signal that came first
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
        if self._stop is None:
            raise KeyboardInterrupt(self.name)
        threading.Thread(target=self._stop, args=(self.name,), daemon=True).start()


class Bystander:
    """A process that only waits: a SIGTERM that ends it went to all processes of the job.

    So Slurm, `timeout` and systemd send it, and Ray's processes on this machine end by it too. That
    is heard here, in a thread, before Ray has ended: the next call to a Ray that has gone may end
    this process, with exit code 1 and not a word, or never return.
    """

    def __init__(self, on_terminated: Callable[[], None]) -> None:
        """Start it; `on_terminated` is called in a thread, and has no time to lose."""
        command = [sys.executable, "-ISc", "import sys; sys.stdin.read()"]  # ends with this one
        quiet = subprocess.DEVNULL
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=quiet, stderr=quiet)
        self._thread = threading.Thread(target=self._watch, args=(on_terminated,), daemon=True)
        self._thread.start()

    def was_terminated(self) -> bool:
        """Say whether a SIGTERM ended it, or does in a moment."""
        self._thread.join(PATIENCE_SECONDS)
        return self._process.returncode == -signal.SIGTERM

    def close(self) -> None:
        """End it; nothing is called for that."""
        self._process.kill()
        self._thread.join()
        if self._process.stdin:
            self._process.stdin.close()

    def _watch(self, on_terminated: Callable[[], None]) -> None:
        if self._process.wait() == -signal.SIGTERM:
            on_terminated()


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
