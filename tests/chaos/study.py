"""One `carray tune` under faults: started anew on another node whenever it has ended badly."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

from carray.records import TrialFolder
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
AGAIN = ("its epoch was begun again", "has lost its node", "its trial goes on elsewhere")


class TuneCommand:
    """The command, wherever it runs just now."""

    def __init__(self, name: str, trials: int, seed: int, logs: Path, storage: str) -> None:
        self.name, self._logs = name, logs
        self._storage = {"CARRAY_STORAGE": storage} if storage else {}
        self._options = ["--trials", str(trials), "--seed", str(seed), "--study", name]
        self.node: Node | None = None
        self.exit_codes: list[int] = []
        self._most_epochs: Counter[str] = Counter()  # that a trial's record ever had
        self.epochs_lost = 0  # that a record had and a later one had not
        self.most_lost = 0  # of one trial, at once
        self._is_new = True

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
        self.node, self._is_new = node, True

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

    def look(self) -> None:
        """Compare the epochs of its records with those that there ever were."""
        for trial, epochs in self._epochs_here().items():
            if self._is_new and epochs < (before := self._most_epochs[trial]):
                self.epochs_lost += before - epochs
                self.most_lost = max(self.most_lost, before - epochs)
                self._most_epochs[trial] = epochs
            self._most_epochs[trial] = max(epochs, self._most_epochs[trial])

    def has_epochs(self) -> bool:
        return any(self._most_epochs.values())

    def begun_again(self) -> int:
        """Count what its boards said of epochs that a rank's or a node's end cut short."""
        logs = [self._log(number) for number in range(1, len(self.exit_codes) + 2)]
        said = "".join(log.read_text(errors="replace") for log in logs if log.exists())
        return sum(said.count(text) for text in AGAIN)

    def _log(self, number: int) -> Path:
        return self._logs / f"{self.name}-call-{number}.log"

    def _epochs_here(self) -> dict[str, int]:
        """Return how many epochs each trial's record has, on the node where the command runs."""
        assert self.node is not None
        found = {}
        for record in self.node.disk.glob(f"cache/runs/*/studies/{self.name}/trials/*/record.json"):
            with suppress(Exception):  # between two renames
                found[record.parent.name] = len(TrialFolder(record.parent).record().epochs)
        return found
