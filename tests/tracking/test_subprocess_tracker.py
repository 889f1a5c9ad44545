"""The tracker in a process of its own: it ends when it must, and never takes the study with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from carray.errors import TrackingError
from carray.runs_folder import RunsFolder
from carray.tracking import SubprocessTracker
from carray.tracking.mlflow_client import client_of, quiet
from tests.tracking.stores import with_store
from tests.tracking.studies import make_record, make_study

ROOT = Path(__file__).parents[2]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunsFolder:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return with_store(tmp_path / "runs")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def tracker(runs: RunsFolder, told: list[str]) -> Iterator[SubprocessTracker]:
    apart = SubprocessTracker(runs, told.append)
    yield apart
    apart.abandon()


def process_of(tracker: SubprocessTracker) -> psutil.Process:
    return psutil.Process(tracker.process.pid)


def test_a_study_goes_on_when_the_process_is_killed(
    runs: RunsFolder, tracker: SubprocessTracker, told: list[str]
) -> None:
    tracker.study_started(make_study(runs).record())
    tracker.trial_started(make_record(0, 0))
    process_of(tracker).kill()
    for epochs in range(1, 2000):
        tracker.epoch_ended(make_record(0, min(epochs, 4)))
    start = time.monotonic()
    tracker.close()
    assert time.monotonic() - start < 5
    assert len(told) == 1
    assert "carray sync" in told[0]


def test_ctrl_c_is_the_drivers_business(
    runs: RunsFolder, tracker: SubprocessTracker, told: list[str]
) -> None:
    tracker.study_started(make_study(runs).record())
    process_of(tracker).send_signal(signal.SIGINT)
    tracker.epoch_ended(make_record(0, 2))
    tracker.close()
    assert told == []
    client = client_of(runs)
    with quiet():
        experiment = client.get_experiment_by_name("autumn").experiment_id
        (run,) = client.search_runs([experiment], "tags.`carray.trial` LIKE '%'")
    assert run.data.tags["carray.epochs_told"] == "2"


def test_the_process_ends_with_a_killed_driver(runs: RunsFolder) -> None:
    code = (
        "import os; from pathlib import Path; from carray.runs_folder import RunsFolder;"
        "from carray.tracking import SubprocessTracker;"
        f"tracker = SubprocessTracker(RunsFolder(Path({str(runs.path)!r})), print);"
        "tracker.wait_open(); print(tracker.process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == -9
    deadline = time.monotonic() + 10
    while psutil.pid_exists(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(done.stdout))


def test_a_server_that_does_not_answer_is_refused_and_no_process_is_left(
    runs: RunsFolder, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    apart = SubprocessTracker(runs, told.append)
    with pytest.raises(TrackingError, match=r"127.0.0.1:9 doesn't answer"):
        apart.wait_open()
    assert apart.process.returncode is not None
    assert told == []


def test_a_process_that_nobody_needs_any_more_is_ended_at_once(
    tracker: SubprocessTracker, told: list[str]
) -> None:
    start = time.monotonic()
    tracker.abandon()
    assert time.monotonic() - start < 2
    assert tracker.process.returncode is not None
    assert told == []
