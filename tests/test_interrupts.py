"""Ctrl-C while carray imports: no traceback, nothing half made, exit code 130."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from carray.interrupts import held_while_importing, importer

SLOW = "import time\nfor _ in range(100):\n    time.sleep(0.01)\nDONE = True\n"


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """Take Ctrl-C as a terminal's programs do: what a shell starts aside is told to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_in(seconds: float) -> None:
    def send() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=send, daemon=True).start()


def test_an_import_ends_before_the_interrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt), held_while_importing():
        interrupt_in(0.2)
        import slow_to_import  # type: ignore[import-not-found]

        assert slow_to_import.DONE
        time.sleep(5)
    assert sys.modules["slow_to_import"].DONE
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_elsewhere_the_interrupt_comes_at_once() -> None:
    assert importer(sys._getframe()) == ""
    with pytest.raises(KeyboardInterrupt), held_while_importing():
        interrupt_in(0.05)
        time.sleep(5)


@pytest.mark.parametrize("seconds", [0.0, 1.0])
def test_a_study_interrupted_while_it_imports_leaves_nothing(
    seconds: float, toy_data: Path, tmp_path: Path
) -> None:
    words = ["tune", str(toy_data), "--runs", str(tmp_path / "runs")]
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.argv = ['carray', *{words!r}]\n"
        "from carray.cli import main; print('main', flush=True); main()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        while started.stdout.readline() != "main\n":
            pass
        time.sleep(0.1 + seconds)
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=60)
    assert started.returncode == 130
    assert "Traceback" not in said
    assert said == "interrupted\n"
    assert not (tmp_path / "runs").exists()
