"""`carray ui` opens MLflow on loopback, over the right store."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from carray.errors import ConfigError, TrackingError
from carray.runs_folder import RunsFolder
from carray.tracking import open_tracker, open_ui
from tests.tracking.stores import with_store
from tests.tracking.studies import make_study

MAIN = "from carray.cli import main; main()"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunsFolder:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return with_store(tmp_path / "runs")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_the_screens_show_the_study(runs: RunsFolder) -> None:
    tracker = open_tracker(runs, pytest.fail)
    tracker.study_started(make_study(runs).record())
    tracker.close()
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", MAIN, "ui", "--port", str(port), "--runs", str(runs.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}" in server.stdout.readline()
        assert "autumn" in experiments_of(port)
    finally:
        os.killpg(server.pid, 15)
        server.communicate(timeout=20)


def experiments_of(port: int) -> list[str]:
    url = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=100"
    deadline = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return [found["name"] for found in json.load(answer)["experiments"]]
        except OSError:  # nobody there yet, or too busy to answer
            assert time.monotonic() < deadline, "the server never answered"
            time.sleep(0.3)


def test_a_taken_port_and_a_missing_store_are_told(runs: RunsFolder, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"Address already in use\): choose another --port"):
            open_ui(runs, taken.getsockname()[1])
    with pytest.raises(TrackingError, match="run a study first"):
        open_ui(RunsFolder(tmp_path / "nothing"), free_port())


def test_a_server_of_ones_own_is_named_not_started(
    runs: RunsFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    caplog.set_level(logging.INFO, "carray")
    open_ui(runs, free_port())
    assert caplog.messages == [
        "MLFLOW_TRACKING_URI names a server: open http://tracking.example:5000"
    ]
