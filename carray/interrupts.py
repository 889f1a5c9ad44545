"""Ctrl-C while a library is imported: the import ends first.

An import that is torn in its middle leaves a module half made, and what then uses it fails with
errors of its own, or drops the interrupt.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

LOOK_SECONDS = 0.05  # how often a waiting interrupt looks whether the import has ended


def is_importing(frame: FrameType | None) -> bool:
    """Say whether a module is being imported by what runs in `frame`."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def send_again(number: int) -> None:
    """Send the main thread this signal again in a moment."""
    main = threading.main_thread().ident

    def send() -> None:
        time.sleep(LOOK_SECONDS)
        if main is not None:
            signal.pthread_kill(main, number)

    threading.Thread(target=send, daemon=True).start()


@contextlib.contextmanager
def held_while_importing() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C as Python does, but never in the middle of an import.

    Does nothing outside the main thread, and where Ctrl-C is somebody else's.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if not is_importing(frame):
        raise KeyboardInterrupt
    send_again(number)
