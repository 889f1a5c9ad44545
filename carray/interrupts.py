"""Ctrl-C while a library is imported.

An import that is torn in its middle leaves a module half made, and what then uses it fails with
errors of its own, or drops the interrupt. So a command that is still importing what it needs ends
at once, since it has begun nothing; in the middle of work the import ends first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

MACHINERY = "<frozen importlib"
COMMANDS = str(Path(__file__).parent / "cli")
EXIT_INTERRUPTED = 130  # as in carray.errors, which takes a while to import
LOOK_SECONDS = 0.05  # how often a waiting interrupt looks whether the import has ended


def importer(frame: FrameType | None) -> str:
    """Return the file whose import statement is being carried out in `frame`, the outermost where
    imports import; "" where none is."""
    file, is_machinery = "", False
    while frame is not None:
        name = frame.f_code.co_filename
        if is_machinery and not name.startswith(MACHINERY):
            file = name
        is_machinery = name.startswith(MACHINERY)
        frame = frame.f_back
    return file


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
    """Raise KeyboardInterrupt on Ctrl-C as Python does, but never in the middle of an import; end
    the process where a command is importing what it needs.

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
    file = importer(frame)
    if not file:
        raise KeyboardInterrupt
    if file.startswith(COMMANDS):
        sys.stdout.flush()
        sys.stderr.write("interrupted\n")
        sys.stderr.flush()
        os._exit(EXIT_INTERRUPTED)
    send_again(number)
