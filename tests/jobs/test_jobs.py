"""What `ray job submit` runs, on a real head node started in the project's folder."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest

from carray import api
from carray.records import StudyFolder
from tests.processes import words_of
from tests.tracking.stores import with_store

pytestmark = pytest.mark.ray

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
RAYS_OWN = "_AutoscalingCoordinatorActor"  # one a cluster, of all studies that ever ran there
START_SECONDS = 90
TINY = ("--trials", "2", "--max-epochs", "2", "--refit", "0", "--concurrent", "1")
COPIED = ("--working-dir", ".", "--", "python")  # a job runs in a copy of the project


@dataclass(frozen=True)
class Head:
    """A head node of its own, with the dashboard and token authentication."""

    dashboard: str
    environment: dict[str, str]
    pid: int
    runs: Path

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Begin `ray job submit WORDS`."""
        command = [str(BIN / "ray"), "job", "submit", "--address", self.dashboard, *words]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def submit(self, *words: str) -> str:
        """Run `ray job submit WORDS` to its end; return its log."""
        with self.start(*words) as process:
            log = process.communicate(timeout=600)[0]
        assert process.returncode == 0, log
        return log

    def alive(self, what: str) -> list[dict[str, Any]]:
        """Return the `actors` or `placement_groups` that are there."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        asked = Request(
            f"{self.dashboard}/api/v0/{what}", headers={"Authorization": f"Bearer {token}"}
        )
        with urlopen(asked, timeout=30) as answer:
            rows = json.load(answer)["data"]["result"]["result"]
        ours = [row for row in rows if row.get("class_name") != RAYS_OWN]
        return [row for row in ours if row["state"] not in ("DEAD", "REMOVED")]

    def study(self, name: str) -> StudyFolder:
        return StudyFolder(self.runs / "studies" / name)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    pytest.fail(f"the head node did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    if shlex.quote(sys.prefix) != sys.prefix:
        pytest.skip(
            "`ray start` itself doesn't run in an environment whose path a shell must quote"
        )
    folder = tmp_path_factory.mktemp("head")
    (folder / "token").write_text(secrets.token_hex(32))
    with_store(folder / "runs")
    environment = {name: value for name, value in os.environ.items() if "RAY" not in name}
    environment |= {
        "PATH": f"{BIN}:{environment['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",
        "RAY_worker_niceness": "0",  # else beside other tests its trials starve
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "CARRAY_RUNS": str(folder / "runs"),
    }
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")
    names += ("ray-client-server-port", "metrics-export-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=200000000"]
    command += ["--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    log = folder / "head.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
        for name in ("dashboard-port", "dashboard-agent-listen-port"):
            wait_for_port(ports[name], process, log)
        dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
        yield Head(dashboard, environment, process.pid, folder / "runs")
    finally:
        if process.poll() is None:
            below = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait(60)
            for left in psutil.wait_procs(below, timeout=10)[1]:
                left.kill()


def wait_until_gone(head: Head, seconds: float = 20) -> None:
    """Wait until nothing of a study is left on the cluster: no placement group, no actor."""
    deadline = time.monotonic() + seconds
    while left := head.alive("placement_groups") + head.alive("actors"):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)


def driver_of(head: Head, study: str) -> psutil.Process:
    (driver,) = [
        each
        for each in psutil.Process(head.pid).children(recursive=True)
        if words_of(each)[-2:] == ["--study", study] and "python" in words_of(each)[0]
    ]
    return driver


def test_a_killed_job_leaves_nothing_and_a_copy_of_the_project_goes_on_with_its_study(
    head: Head,
) -> None:
    """The literal form, with the job's own data and space; then another that names both."""
    data = api.toy_data(head.runs / "demo", images_per_class=6)
    with head.start("--", "jobs/tune_backbones.py", *TINY, "--study", "cars") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if " epoch 1/" in line:
                driver_of(head, "cars").kill()
                break
        log = process.communicate(timeout=120)[0]
    assert process.returncode != 0, log
    wait_until_gone(head)

    words = ("--data", str(data), "--space", "quick", *TINY, "--study", "cars")
    log = head.submit(*COPIED, "jobs/tune_backbones.py", *words)
    folder = head.study("cars")
    assert f"study: {folder.path}" in log
    assert "starting points:" not in log, "the killed job had begun the study"
    assert folder.record().state == "complete"
    assert folder.record().data == str(data)
    trials = folder.records()
    assert [trial.state.is_finished() for trial in trials] == [True, True]
    assert folder.trial(0).logits("val").shape == (len(folder.labels("val")), 12)
    assert folder.space_file.exists()  # the copy of the project goes, and its space with it
    wait_until_gone(head)

    log = head.submit("--", "jobs/ensemble.py", "--top", "1", "--name", "one")
    assert f"model package: {head.runs / 'models' / 'one'}" in log
    assert (head.runs / "models" / "one" / "card.json").exists()
