"""The default store: whole or not there."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psutil
import pytest

from carray.errors import TrackingError
from carray.runs_folder import RunsFolder
from carray.tracking import (
    SubprocessTracker,
    check_server,
    download_study,
    open_tracker,
    sync_study,
)
from carray.tracking.artifacts import attach
from carray.tracking.mlflow_client import CONNECTIONS, client_of, store_of
from tests.tracking.stores import with_store
from tests.tracking.studies import make_study


@pytest.fixture(autouse=True)
def _default_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_who_is_killed_while_the_store_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With half its tables MLflow refuses it for ever."""
    from mlflow.store.db import utils

    def killed(engine: object) -> None:
        raise KeyboardInterrupt

    runs = RunsFolder(tmp_path)
    (tmp_path / ".mlflow.db.1-dead").write_text("left by one that was killed at once")
    monkeypatch.setattr(utils, "_upgrade_db", killed)
    with pytest.raises(KeyboardInterrupt):
        check_server(runs)
    assert [file.name for file in tmp_path.glob("*.db*")] == []


def test_a_store_that_is_broken_is_refused_with_what_helps(tmp_path: Path) -> None:
    runs = RunsFolder(tmp_path)
    runs.tracking_file.write_bytes(b"SQLite format 3\0" + b"\0" * 500)
    with pytest.raises(
        TrackingError, match=r"mlflow\.db doesn't answer .*; .* is broken, move it away"
    ):
        check_server(runs)
    runs.tracking_file.rename(tmp_path / "moved.db")
    assert held(tmp_path) == []
    check_server(runs)
    assert runs.tracking_file.stat().st_size > 500


def test_a_database_that_is_down_is_given_up_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as down:
        tries: list[int] = []

        def hang_up() -> None:
            while True:
                try:
                    down.accept()[0].close()
                except OSError:
                    return
                tries.append(1)

        thread = threading.Thread(target=hang_up)
        thread.start()
        port = down.getsockname()[1]
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:planted@127.0.0.1:{port}/runs")
        with pytest.raises(TrackingError, match=r"runs doesn't answer .*; start the server, mend"):
            check_server(RunsFolder(tmp_path))
        down.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert len(tries) == CONNECTIONS
    assert capfd.readouterr().err == ""


def test_a_store_that_may_only_be_read_is_refused_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = with_store(tmp_path)
    study = make_study(runs)
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)  # root may
    with pytest.raises(TrackingError, match=r"mlflow\.db may only be read: .*, or name another"):
        sync_study(runs, study)


def held(folder: Path) -> list[str]:
    """Return the files in `folder` that this process has open."""
    return [path for path, *_ in psutil.Process().open_files() if Path(path).parent == folder]


def test_whoever_is_done_with_a_store_leaves_no_connection_to_it(tmp_path: Path) -> None:
    runs = with_store(tmp_path)
    folder = make_study(runs)
    sync_study(runs, folder)
    download_study(runs, folder.path.name)
    attach(runs, folder.path.name, 0, [])
    tracker = open_tracker(runs, pytest.fail)
    tracker.study_started(folder.record())
    assert held(tmp_path) == [str(runs.tracking_file)]
    tracker.close()
    assert held(tmp_path) == []


@pytest.mark.parametrize("way", [shutil.move, shutil.copytree])
def test_a_store_goes_with_its_runs_folder(
    tmp_path: Path, way: Callable[[Path, Path], object]
) -> None:
    old = with_store(tmp_path / "Ünser 100%" / "runs")
    tracker = open_tracker(old, pytest.fail)
    tracker.study_started(make_study(old).record())
    tracker.close()
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"drawn")
    way(old.path, tmp_path / "new home")
    before = sorted(old.path.rglob("*"))
    runs = RunsFolder(tmp_path / "new home")
    with store_of(runs) as client:
        number = client.get_experiment_by_name("autumn").experiment_id
        [run] = client.search_runs([number])
        client.log_artifact(client.create_run(number).info.run_id, str(picture))
    place = Path(unquote(urlsplit(run.info.artifact_uri).path))
    assert place.is_relative_to(runs.tracking_artifacts) and place.is_dir()
    assert [file.name for file in runs.tracking_artifacts.rglob("*.png")] == ["picture.png"]
    assert sorted(old.path.rglob("*")) == before, "nothing is written where it was"


def test_artifacts_that_were_put_elsewhere_on_purpose_stay_there(tmp_path: Path) -> None:
    runs = with_store(tmp_path / "runs")
    places = ["s3://bucket/mlartifacts/autumn", (tmp_path / "big disk" / "autumn").as_uri()]
    with store_of(runs) as client:
        made = [client.create_experiment(f"e{n}", place) for n, place in enumerate(places)]
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    for same in (runs, RunsFolder(tmp_path / "link")):
        with store_of(same) as client:
            assert [client.get_experiment(one).artifact_location for one in made] == places


@pytest.mark.parametrize(("name", "is_fit"), [("#1 & ü's", True), ("my%20cars", False)])
def test_a_runs_folder_whose_path_looks_like_a_url_is_refused_before_mlflow_writes_beside_it(
    name: str, is_fit: bool, tmp_path: Path
) -> None:
    runs = with_store(tmp_path / name)
    if is_fit:
        client_of(runs).create_experiment("cars")
        return
    with pytest.raises(TrackingError, match=r"my%20cars, since it takes %20 in .*--runs"):
        client_of(runs)
    with pytest.raises(TrackingError, match="rename that folder"):
        SubprocessTracker(runs)
