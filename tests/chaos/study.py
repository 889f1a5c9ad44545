"""One `carray tune` under faults: started anew on another node whenever it has ended badly."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

from tests.chaos.nodes import RAY_PORT, SUBNET, Node, command
from tests.chaos.services import BUCKET

RUNS, DATA = f"s3://{BUCKET}/runs", f"s3://{BUCKET}/cars"
LANES, EPOCHS, IMAGE_SIZE = 3, 20, 32
SPACE = f"""
version: 1
metric: val/log_loss
direction: minimize
fixed:
  backbone: small_car_cnn
  pretrained: false
  epochs: {EPOCHS}
  image_size: {IMAGE_SIZE}
  scratch.filters: 16
  device_batch_size: 16
search:
  optimizer.lr: {{loguniform: [1e-4, 3e-2]}}
"""
EPOCH = re.compile(r"trial (\d{4}) epoch (\d+)/")
AGAIN = ("its epoch was begun again", "has lost its node", "its trial goes on elsewhere")


class TuneCommand:
    """The command, wherever it runs just now."""

    def __init__(self, name: str, trials: int, seed: int, logs: Path, storage: str) -> None:
        self.name, self._logs = name, logs
        self._storage = {"CARRAY_STORAGE": storage} if storage else {}
        self._options = ["--trials", str(trials), "--seed", str(seed), "--study", name]
        self.node: Node | None = None
        self.exit_codes: list[int] = []

    def start(self, node: Node) -> None:
        """Run it there."""
        (node.disk / "space.yaml").write_text(SPACE)
        where = ["--runs", RUNS, "--address", f"{SUBNET}.11:{RAY_PORT}", "--place-timeout", "120"]
        size = ["--lanes", str(LANES), "--min-lanes", "1", "--cpus-per-worker", "1"]
        words = ["tune", DATA, "--space", "/srv/space.yaml", "--scheduler", "none", "--no-pictures"]
        variables = [f"{name}={value}" for name, value in self._storage.items()]
        called = ["env", *variables, *command("carray"), *words, *where, *size, *self._options]
        with self._log(len(self.exit_codes) + 1).open("wb") as log:
            self._process = node.start(*called, log=log)
        self.node = node

    def has_ended(self) -> bool:
        """Say whether it has; note its exit code."""
        code = self._process.poll()
        if code is None:
            return False
        self.exit_codes.append(code)
        return True

    def kill(self) -> None:
        """As a machine's out-of-memory killer does."""
        for process in psutil.Process(self._process.pid).children():
            process.send_signal(signal.SIGKILL)

    def stop(self) -> None:
        """End it, where the time is up."""
        if self._process.poll() is None:
            self.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(20)

    def has_epochs(self) -> bool:
        """Say whether any trial has got through an epoch."""
        return any(EPOCH.search(text) for text in self._said())

    def epochs_lost(self) -> tuple[int, int]:
        """Count epochs that a call said again after another; return also the most of a trial."""
        known: set[tuple[str, str]] = set()
        lost: list[Counter[str]] = []
        for text in self._said():
            told = {(found[1], found[2]) for found in EPOCH.finditer(text)}
            lost.append(Counter(trial for trial, _ in told & known))
            known |= told
        total = sum(each.total() for each in lost)
        return total, max((max(each.values(), default=0) for each in lost), default=0)

    def begun_again(self) -> int:
        """Count what its boards said of epochs that a rank's or a node's end cut short."""
        return sum(said.count(text) for said in self._said() for text in AGAIN)

    def _said(self) -> list[str]:
        """Return what each call wrote, in turn."""
        logs = [self._log(number) for number in range(1, len(self.exit_codes) + 2)]
        return [log.read_text(errors="replace") for log in logs if log.exists()]

    def _log(self, number: int) -> Path:
        return self._logs / f"{self.name}-call-{number}.log"
