"""Folders at a URL: a local one through pyarrow's filesystems, and S3 by moto's server."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from carray.cli import run
from carray.errors import EXIT_GOES_ON, ConfigError, StorageError
from carray.records import StudyFolder
from carray.search.observers.mirror import StudyMirror
from carray.storage.cache import folder_of
from carray.storage.mirror import Mirror, is_same
from carray.storage.remote import CHUNK_BYTES, FileStamp, RemoteFolder, is_url

SECRET = "planted/secret+key0123"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A bucket of a server on this machine."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "AKIAABCDEFGHIJKLMNOP", "AWS_SECRET_ACCESS_KEY": SECRET}
    more = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (keys | more).items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket/runs"
    server.stop()


@pytest.fixture(params=["file", "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> RemoteFolder:
    if request.param == "s3":
        return RemoteFolder(request.getfixturevalue("s3"))
    return RemoteFolder((tmp_path / "there").as_uri())


@pytest.mark.filterwarnings("ignore")
def test_what_is_put_is_fetched_as_it_was(remote: RemoteFolder, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(CHUNK_BYTES + 12345))
    (tmp_path / "empty").touch()
    told: list[int] = []
    remote.put(large, "a/b/large", told.append)
    remote.put(tmp_path / "empty", "a/empty")
    remote.write("text.json", b"{}")
    assert sum(told) == large.stat().st_size
    assert {name: stamp.size for name, stamp in remote.files().items()} == {
        "a/b/large": large.stat().st_size,
        "a/empty": 0,
        "text.json": 2,
    }
    assert sorted(remote.files("a")) == ["a/b/large", "a/empty"]
    remote.fetch("a/b/large", tmp_path / "back" / "large")
    remote.fetch("a/empty", tmp_path / "back" / "empty")
    assert (tmp_path / "back" / "large").read_bytes() == large.read_bytes()
    assert (tmp_path / "back" / "empty").read_bytes() == b""
    stamp = remote.stamp("a/b/large")
    assert stamp is not None
    assert (tmp_path / "back" / "large").stat().st_mtime == pytest.approx(stamp.changed_at)

    remote.write("text.json", b"{1}")
    assert remote.read("text.json") == b"{1}"
    remote.remove("text.json")
    remote.remove("text.json")
    assert (remote.read("text.json"), remote.stamp("text.json")) == (None, None)
    with pytest.raises(FileNotFoundError):
        remote.fetch("text.json", tmp_path / "none")
    assert remote.files("nowhere") == {}


@pytest.mark.filterwarnings("ignore")
def test_a_folder_goes_as_one_file(remote: RemoteFolder, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "state.pt").write_bytes(b"state")
    (folder / "meta.json").write_text("{}")
    remote.put_folder(folder, "0007/checkpoint.tar")
    assert remote.fetch_folder("0007/checkpoint.tar", tmp_path / "back")
    back = {file.name: file.read_bytes() for file in (tmp_path / "back").iterdir()}
    assert back == {"state.pt": b"state", "meta.json": b"{}"}
    whole = remote.read("0007/checkpoint.tar")
    assert whole is not None
    remote.write("0007/checkpoint.tar", whole[:700])
    assert not remote.fetch_folder("0007/checkpoint.tar", tmp_path / "torn")
    assert not remote.fetch_folder("0008/checkpoint.tar", tmp_path / "torn")
    assert not (tmp_path / "torn").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_refusal_is_one_sentence_with_the_cure_and_no_secret(s3: str) -> None:
    with pytest.raises(StorageError, match=r"s3://nobody/runs can't be used \(NO_SUCH_BUCKET.*A"):
        RemoteFolder("s3://nobody/runs").write("a", b"1")
    with pytest.raises(ConfigError, match=r"s3://KEY:\*\*\*@bucket/runs holds keys") as refused:
        RemoteFolder(f"s3://KEY:{SECRET}@bucket/runs")
    assert SECRET not in str(refused.value)
    with pytest.raises(StorageError, match="Unrecognized filesystem type in URI"):
        RemoteFolder("odd://bucket/runs").files()


class Failing(BaseHTTPRequestHandler):
    """Answers 500 to everything."""

    def do_PUT(self) -> None:
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *said: object) -> None:
        pass


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_fails_is_not_blamed_on_the_keys_nor_on_the_user(
    s3: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("carray.storage.remote.ATTEMPTS", 1)
    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(SystemExit) as ended:
            run(lambda: RemoteFolder(f"{s3}?region=us-east-1").write("a", b"1"))
        server.shutdown()
    assert ended.value.code == EXIT_GOES_ON
    said = capsys.readouterr().err
    assert "HTTP status 500" in said
    assert "a fault of the server's own; type the same command later" in said


@pytest.mark.filterwarnings("ignore")
def test_a_file_stays_where_the_server_fails_its_successor_and_is_back_at_once(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver may be killed then: what is at the URL is all that the next one has."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication

    remote = RemoteFolder(s3)
    remote.write("study.json", b"before")
    served = DomainDispatcherApplication.__call__
    refused: list[str] = []

    def fail_first(self: Any, asked: dict[str, Any], begin: Callable[..., Any]) -> Any:
        if refused:
            return served(self, asked, begin)
        refused.append(asked["REQUEST_METHOD"])
        begin("500 Internal Server Error", [("Content-Length", "0")])
        return [b""]

    monkeypatch.setattr("carray.storage.remote.ATTEMPTS", 1)
    monkeypatch.setattr(DomainDispatcherApplication, "__call__", fail_first)
    with pytest.raises(StorageError, match="HTTP status 500"):
        RemoteFolder(s3).write("study.json", b"after")
    assert len(refused) == 1, "the server was back when the write had failed"
    assert remote.read("study.json") == b"before"


@pytest.mark.filterwarnings("ignore")
def test_an_upload_of_a_study_is_given_up_soon_since_its_queue_tries_again(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a request waits between its own attempts, seconds, is lost once the server is back."""
    study = StudyFolder(tmp_path / "studies" / "s")
    uploads = StudyMirror(Mirror(tmp_path, RemoteFolder(s3)), study, False, print)
    with ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        start = time.monotonic()
        for _ in range(3):
            with pytest.raises(StorageError, match="HTTP status 500"):
                uploads._remote.write("study.json", b"{}")
        server.shutdown()
    assert time.monotonic() - start < 6


def test_threads_that_write_one_file_leave_a_whole_one(tmp_path: Path) -> None:
    remote = RemoteFolder((tmp_path / "bucket").as_uri())
    contents = [bytes([65 + number]) * 200_000 for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            list(pool.map(lambda content: remote.write("optuna.db", content), contents))
            assert remote.read("optuna.db") in contents
    assert [file.name for file in (tmp_path / "bucket").iterdir()] == ["optuna.db"]


def test_what_is_a_url() -> None:
    assert is_url("s3://bucket/runs")
    assert not any(map(is_url, ["runs", "/abs/runs", Path("a") / "b", "C:\\runs", ""]))


@pytest.mark.filterwarnings("ignore")
def test_what_breaks_off_leaves_no_part_of_a_file(remote: RemoteFolder, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(1000))
    with pytest.raises(ZeroDivisionError):
        remote.put(tmp_path / "weights", "broken/weights", lambda count: print(count // 0))
    assert remote.files("broken") == {}


def test_a_url_has_one_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path))
    folder = folder_of("s3://bucket/team/runs", "runs")
    assert folder.parent == tmp_path / "runs"
    assert folder.name.startswith("bucket-team-runs-")
    same = ["s3://bucket/team/runs/", "s3://bucket/team/runs/?region=eu-central-1"]
    assert {folder_of(url, "runs") for url in same} == {folder}
    assert folder_of("s3://bucket/team-runs", "runs") != folder


def test_a_file_replaced_while_it_is_fetched_is_not_taken_for_the_new_one(tmp_path: Path) -> None:
    remote, here = RemoteFolder((tmp_path / "there").as_uri()), tmp_path / "study.json"
    remote.write("study.json", b"before")
    os.utime(tmp_path / "there" / "study.json", (1000, 1000))
    remote.fetch("study.json", here, lambda count: remote.write("study.json", b"after!"))
    assert here.read_bytes() == b"before"
    now = remote.stamp("study.json")
    assert now is not None
    assert not is_same(here, now)


def test_a_mirror_is_asked_while_an_upload_has_it_look_again(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path, RemoteFolder((tmp_path / "there").as_uri()))

    class Forgotten(dict[str, FileStamp]):
        def __contains__(self, name: object) -> bool:
            mirror.forget()  # as an upload's thread does
            return False

    mirror._seen = {"a": (0.0, Forgotten()), "b": (0.0, Forgotten())}
    assert not mirror.has(tmp_path / "best.safetensors")
