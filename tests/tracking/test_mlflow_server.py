"""An MLflow server that wants a name and a password: used, asked for, and kept nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from carray.cli import main
from carray.ensemble.pool import find_studies
from carray.records import TrialState
from carray.runs_folder import RunsFolder
from carray.tracking import SubprocessTracker
from tests.tracking.studies import end_trial, make_record, make_study
from tests.tracking.test_ui import free_port

NAME, PASSWORD = "ada", "planted-password"
CONFIG = f"""
[mlflow]
default_permission = READ
database_uri = sqlite:///auth.db
admin_username = {NAME}
admin_password = {PASSWORD}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
grant_default_workspace_access = false
auth_cache_ttl_seconds = 60
"""
START_SECONDS = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real one, eight CPU seconds: what it answers to a wrong password is MLflow's own affair."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    (folder / "auth.ini").write_text(CONFIG)
    settings = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "any",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    store = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "files"]
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", *store, *where],
        cwd=folder,
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


@pytest.fixture
def runs(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> RunsFolder:
    for name, value in {"URI": server, "USERNAME": NAME, "PASSWORD": PASSWORD}.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    return RunsFolder(tmp_path / "runs")


def sync(runs: RunsFolder, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run `carray sync`; return its exit code and all that it said."""
    with pytest.raises(SystemExit) as ended:
        main(["sync", "--runs", str(runs.path)])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


@pytest.mark.filterwarnings("ignore")
def test_a_study_is_told_synced_and_fetched_with_a_password_that_is_kept_nowhere(
    runs: RunsFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_study(runs)
    told: list[str] = []
    tracker = SubprocessTracker(runs, told.append)
    tracker.study_started(folder.record())
    tracker.epoch_ended(make_record(0, 2))
    tracker.close()
    assert told == []
    for number in (0, 1):
        trial = end_trial(folder, make_record(number, 3, TrialState.COMPLETE))
        (trial / "best.safetensors").write_bytes(b"weights")
    code, said = sync(runs, capsys)
    assert code == 0
    assert "MLflow has 2 trials of study autumn" in said
    assert "with the weights of 2" in said

    fresh = RunsFolder(tmp_path / "fresh")
    (fetched,) = find_studies(fresh, "autumn", from_tracking=True)
    assert [len(record.epochs) for record in fetched.records()] == [3, 3]
    assert fetched.trial(1).weights_file.read_bytes() == b"weights"
    kept = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(kept) > 8
    assert not any(PASSWORD.encode() in file.read_bytes() for file in kept)
    assert PASSWORD not in said


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "password", "sentence"),
    [
        (NAME, "wrong-password", "doesn't take the name 'ada' with its password; mend MLFLOW_"),
        ("", "", "wants a name and a password; set MLFLOW_TRACKING_USERNAME and MLFLOW_"),
    ],
)
def test_a_server_that_lets_nobody_in_is_one_sentence(
    name: str,
    password: str,
    sentence: str,
    runs: RunsFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_study(runs)
    for variable, value in {"USERNAME": name, "PASSWORD": password}.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{variable}", value)
    code, said = sync(runs, capsys)
    assert code == 2
    assert said.count("\n") == 1
    assert f"carray: the tracking server {os.environ['MLFLOW_TRACKING_URI']} {sentence}" in said
    assert "wrong-password" not in said
