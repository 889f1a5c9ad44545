"""Runs the MLflow tracker in a subprocess, so that it doesn't slow the study's driver down.

The driver writes a line of JSON an event to the process's standard input: an epoch is its row, some
400 bytes. `MlflowTracker` does the work over there. What it has to say comes back as lines too. The
process ends with its driver, however that ends: the records on disk are the truth.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from carray.errors import TrackingError
from carray.masking import masked
from carray.records import StudyRecord, TrialFolder, TrialRecord
from carray.runs_folder import RunsFolder
from carray.tracking.mlflow_client import check_location, tracking_uri
from carray.tracking.tracker import Tracker

ENTRY = "from carray.tracking.subprocess_tracker import main; main()"
NICENESS = 5  # training goes before it
PIPE_BYTES = 2**20  # some thousand epochs, should that process be held up
OPEN_SECONDS = 120.0  # to import the library on a machine that is at its limit
ENDED = "ended"
SYNC = "nothing is lost: `carray sync` sends every run from its record"

_logger = logging.getLogger(__name__)


class SubprocessTracker(Tracker):
    """Tells everything to a tracker in a process of its own; see `Tracker`.

    The process starts at once, and comes up while the caller does something else: the first call
    waits for it.

    Args:
        runs: the runs folder, whose store it is unless `$MLFLOW_TRACKING_URI` names another.
        on_trouble: is told what the tracker has to say, in a thread of its own; default: logged.

    Raises:
        TrackingError: MLflow can't keep runs in that folder.
    """

    def __init__(
        self, runs: RunsFolder, on_trouble: Callable[[str], None] = _logger.warning
    ) -> None:
        check_location(runs)
        self._uri = tracking_uri(runs)
        self._on_trouble: Callable[[str], None] = lambda text: on_trouble(masked(text))
        self._told: dict[int, int] = {}  # epochs, by number of a trial that is known over there
        self._replies: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._is_open = False
        self.process = subprocess.Popen(
            [sys.executable, "-c", ENTRY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            text=True,
            pipesize=PIPE_BYTES,
            encoding="utf-8",
        )
        self._listener = threading.Thread(target=self._listen, name="tracking", daemon=True)
        self._listener.start()
        self._send(open=str(runs.path))

    def wait_open(self) -> None:
        """Wait until the store has answered.

        Raises:
            TrackingError: it doesn't answer or refuses.
        """
        if not self._is_open:
            self._is_open = True
            self._refuse(self._reply(OPEN_SECONDS))

    def study_started(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Find or make the study's experiment and run; waits for the store."""
        self.wait_open()
        self._send(study_started=study.model_dump(mode="json"), files=_texts(files))
        self._refuse(self._reply(OPEN_SECONDS))

    def trial_started(self, record: TrialRecord) -> None:
        """Send the trial's record."""
        self._told[record.number] = len(record.epochs)
        self._send(trial=record.model_dump(mode="json"))

    def epoch_ended(self, record: TrialRecord) -> None:
        """Send the epochs that are not sent yet."""
        sent = self._told.get(record.number)
        if sent is None:
            self.trial_started(record)
            return
        self._told[record.number] = len(record.epochs)
        self._send(number=record.number, epochs=record.epochs[sent:])

    def trial_ended(self, record: TrialRecord, folder: TrialFolder) -> None:
        """Send the trial's record and where its files are."""
        self._told.pop(record.number, None)
        self._send(trial=record.model_dump(mode="json"), folder=str(folder.path))

    def study_ended(self, study: StudyRecord, files: Sequence[Path] = ()) -> None:
        """Send the study's record."""
        self._send(study_ended=study.model_dump(mode="json"), files=_texts(files))

    def close(self) -> None:
        """Wait until everything is told, or is known to be late, then end the process."""
        from carray.tracking.mlflow_tracker import CLOSE_SECONDS

        self._send(close=True)
        with contextlib.suppress(OSError):
            assert self.process.stdin is not None
            self.process.stdin.close()
        try:
            self.process.wait(CLOSE_SECONDS + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._listener.join()

    def abandon(self) -> None:
        """End the process where it is still there; what it was told and didn't tell is not told."""
        if self.process.poll() is None:
            self.process.kill()
            self._is_open = False
        self.close()

    def _send(self, **message: Any) -> None:
        line = json.dumps(message, ensure_ascii=False) + "\n"
        with self._lock, contextlib.suppress(OSError, ValueError):
            assert self.process.stdin is not None
            self.process.stdin.write(line)
            self.process.stdin.flush()

    def _reply(self, seconds: float) -> dict[str, Any]:
        try:
            return self._replies.get(timeout=seconds)
        except queue.Empty:
            return {"error": f"the tracking store {self._uri} said nothing for {seconds:.0f} s"}

    def _refuse(self, reply: dict[str, Any]) -> None:
        if "error" in reply:
            self.close()
            raise TrackingError(reply["error"])

    def _listen(self) -> None:
        """Hand on what comes from the process; say so if it ended before it was told to."""
        assert self.process.stdout is not None
        has_ended = False
        with self.process.stdout as lines:
            for line in lines:
                message = json.loads(line)
                has_ended = has_ended or message.get(ENDED, False)
                if "trouble" in message:
                    self._on_trouble(message["trouble"])
                elif not has_ended:
                    self._replies.put(message)
        if not has_ended:
            gone = f"the process that writes to {self._uri} ended; {SYNC}"
            if self._is_open:
                self._on_trouble(gone)
            self._replies.put({"error": gone})


def _texts(files: Sequence[Path]) -> list[str]:
    return [str(file) for file in files]


def main() -> None:
    """Be the process: carry out the lines of standard input until they end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the driver says when it ends
    os.nice(NICENESS)
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever the library prints is no answer
    TrackerServer(answers).run(sys.stdin)


class TrackerServer:
    """Carries out what the driver's lines say."""

    def __init__(self, answers: TextIO) -> None:
        self._answers = answers
        self._lock = threading.Lock()
        self._records: dict[int, TrialRecord] = {}  # of trials that run
        self._tracker: Tracker | None = None

    def run(self, lines: TextIO) -> None:
        """Read to the end; a driver that ended without a word takes this process with it."""
        for line in lines:
            message = json.loads(line)
            if "close" in message:
                if self._tracker is not None:
                    self._tracker.close()
                self._say(**{ENDED: True})
                return
            self._carry_out(message)

    def _carry_out(self, message: dict[str, Any]) -> None:
        if "open" in message:
            self._answered(lambda: self._open(Path(message["open"])))
            return
        tracker = self._tracker
        if tracker is None:
            return
        files = [Path(file) for file in message.get("files", ())]
        if "study_started" in message:
            study = StudyRecord.model_validate(message["study_started"])
            self._answered(lambda: tracker.study_started(study, files))
        elif "study_ended" in message:
            tracker.study_ended(StudyRecord.model_validate(message["study_ended"]), files)
        elif "folder" in message:
            record = TrialRecord.model_validate(message["trial"])
            self._records.pop(record.number, None)
            tracker.trial_ended(record, TrialFolder(Path(message["folder"])))
        elif "trial" in message:
            record = TrialRecord.model_validate(message["trial"])
            self._records[record.number] = record
            tracker.trial_started(record)
        else:
            record = self._records[message["number"]]
            more = {"epochs": (*record.epochs, *message["epochs"])}
            self._records[record.number] = record = record.model_copy(update=more)
            tracker.epoch_ended(record)

    def _open(self, runs: Path) -> None:
        from carray.tracking.sync import open_tracker

        self._tracker = open_tracker(RunsFolder(runs), lambda text: self._say(trouble=text))

    def _answered(self, work: Callable[[], None]) -> None:
        try:
            work()
        except TrackingError as error:
            self._say(error=str(error))
        else:
            self._say(done=True)

    def _say(self, **message: Any) -> None:
        with self._lock, contextlib.suppress(OSError):
            print(json.dumps(message, ensure_ascii=False), file=self._answers, flush=True)
