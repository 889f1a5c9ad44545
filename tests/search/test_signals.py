"""A SIGTERM to all processes of a job is told from one to the study's own process."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import closing, suppress

import psutil
import pytest

from carray.search.signals import Bystander


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL, None])
def test_a_bystander_tells_of_a_sigterm_and_of_no_other_end(number: int | None) -> None:
    told = threading.Event()
    before = set(psutil.Process().children())
    with closing(Bystander(told.set)) as bystander:
        (process,) = set(psutil.Process().children()) - before
        if number is not None:
            process.send_signal(number)
            with suppress(ChildProcessError):  # reaped already by whose child it is
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert bystander.was_terminated() == (number == signal.SIGTERM)
    assert told.is_set() == (number == signal.SIGTERM)
    assert not process.is_running()
