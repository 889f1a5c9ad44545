"""Data at a URL: the manifest and the pixels travel, once a node; the photographs stay."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import carray
from carray.data import remote_data
from carray.data.manifest import Manifest
from carray.data.pixels.store import build_store, open_store
from carray.data.remote_data import cache_gib, fetch_store, of_bytes, push_data
from carray.errors import ConfigError, DataError, ServerFault
from carray.lanes.depot import StudyPlaces
from carray.lanes.lane_rank import answer_to, node_fault
from carray.lanes.messages import LaneOrder
from carray.lanes.sent_files import NodeFolders
from carray.records import StudyFolder
from carray.storage import remote
from carray.storage.remote import FileStamp, RemoteFolder
from carray.typing import Advance
from tests.lanes.fakes import LocalDepot
from tests.training.orders import new_runner, order_of, small_config


@pytest.fixture
def there(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The toy cars at a URL, with pixels for 32 px; this node's cache is empty."""
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "cache"))
    url = (tmp_path / "bucket" / "cars").as_uri()
    store = Path(build_store(toy_data, 32).folder)
    pushed = push_data(toy_data, [store], url)
    assert pushed.stores == ("40-squash",)
    return url


def test_a_node_fetches_the_pixels_once_and_they_are_those_of_the_photographs(
    there: str, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, told, fetched = Manifest.load(toy_data), [], []
    manifest = Manifest.load(there)
    assert (manifest.where, manifest.name) == (there, "cars")
    assert (manifest.hash, manifest.cut) == (mine.hash, mine.cut)
    fetch = RemoteFolder.fetch

    def counted(self: RemoteFolder, name: str, into: Path, *rest: Advance) -> None:
        fetched.append(name)
        fetch(self, name, into, *rest)

    @contextmanager
    def progress(what: str, total: int) -> Iterator[Advance]:
        told.append((what, total))
        yield lambda count: None

    monkeypatch.setattr(RemoteFolder, "fetch", counted)
    with ThreadPoolExecutor(4) as pool:  # processes of a node ask at once
        stores = list(pool.map(lambda _: open_store(manifest, 32, "squash", progress), range(4)))
    assert (stores[0].pixels == open_store(mine, 32, "squash").pixels).all()
    assert sorted(fetched) == sorted(f"store/40-squash/{n}" for n in remote_data.STORE_FILES)
    assert told == [(f"pixel store 40-squash from {there}", len(mine.included))]
    assert Manifest.load(there).hash == mine.hash


def test_a_single_trial_and_what_comes_of_it_take_data_at_a_url(there: str, tmp_path: Path) -> None:
    named = {"backbone": "test_resnet", "image_size": 32, "epochs": 1, "pretrained": False}
    record = carray.train(there, named, runs=tmp_path / "runs")
    assert record.state == "complete"
    assert StudyFolder(tmp_path / "runs" / "studies" / "single").record().data == there
    replayed = carray.reproduce("single/0000", runs=tmp_path / "runs")
    assert replayed.agrees
    assert carray.sanity(there, named, images=8, seconds=1).images == 8


def test_a_url_that_fails_for_a_while_ends_no_trial(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After that while it is the node that can't train: another lane may."""
    stamp, failures = RemoteFolder.stamp, [1, 2]

    def failing(self: RemoteFolder, name: str) -> FileStamp | None:
        if failures:
            failures.pop()
            raise ServerFault("HTTP status 500")
        return stamp(self, name)

    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(RemoteFolder, "stamp", failing)
    order = order_of(tmp_path / "trial", Path(there), small_config(image_size=32))
    order = order.model_copy(update={"data": there})
    assert new_runner().run_epoch(order).parameters > 0
    assert failures == []
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", -1.0)
    failures.append(1)
    order = order.model_copy(update={"folder": str(tmp_path / "other")})
    with pytest.raises(ServerFault) as failed:
        new_runner().run_epoch(order)
    assert node_fault(failed.value, LaneOrder("epoch", order)) == "HTTP status 500"
    assert answer_to(failed.value, LaneOrder("epoch", order)).is_undone


def test_a_lane_whose_node_has_the_data_does_not_ask_the_url(there: str, tmp_path: Path) -> None:
    manifest = Manifest.load(there)
    pixels = open_store(manifest, 32, "squash").pixels
    shutil.rmtree(tmp_path / "bucket")
    order = order_of(tmp_path / "trial", Path(there), small_config())
    order = order.model_copy(update={"data": there})
    for known, data in ((manifest.hash, str(manifest.folder)), ("of others", there)):
        places = StudyPlaces(str(tmp_path), "nonce", there, "", known)
        (tmp_path / "nonce").touch()
        assert NodeFolders(places, LocalDepot(places)).here(order).data == data
    kept = Manifest.load(manifest.folder)
    assert (open_store(kept, 32, "squash").pixels == pixels).all()


def test_what_is_not_there_is_said_with_the_command_that_puts_it_there(
    there: str, toy_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"no pixel store of 80 px \(squash\): .*carray data push"):
        open_store(Manifest.load(there), 64, "squash")
    nowhere = (tmp_path / "bucket" / "nowhere").as_uri()
    with pytest.raises(DataError, match=f"there is no data set at {nowhere}: `carray data push"):
        Manifest.load(nowhere)
    other = tmp_path / "other"
    shutil.copytree(toy_data, other, ignore=shutil.ignore_patterns("store"))
    (other / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match="holds another data set"):
        push_data(other, [], there)
    with pytest.raises(ConfigError, match=r"s3://KEY:\*\*\*@bucket/cars holds keys: leave them"):
        Manifest.load("s3://KEY:SECRET@bucket/cars")
    assert not fetch_store(toy_data, tmp_path / "store", 1), "an ordinary folder mirrors nothing"


def test_the_cache_forgets_the_pixels_used_longest_ago(
    there: str, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = (tmp_path / "bucket" / "again").as_uri()
    store = Path(build_store(toy_data, 32).folder)
    push_data(toy_data, [store], second)
    room = 1.5 * sum(file.stat().st_size for file in store.iterdir()) / 2**30
    monkeypatch.setenv("CARRAY_CACHE_GIB", f"{room:.9f}")
    first = open_store(Manifest.load(there), 32, "squash")
    kept = open_store(Manifest.load(second), 32, "squash")
    assert kept.folder.exists()
    assert not first.folder.exists()
    monkeypatch.setenv("CARRAY_CACHE_GIB", "-1")
    with pytest.raises(ConfigError, match="CARRAY_CACHE_GIB='-1' must be a number of GiB"):
        cache_gib()
    monkeypatch.setenv("CARRAY_CACHE_GIB", "much")
    with pytest.raises(ConfigError, match="CARRAY_CACHE_GIB='much' must be a number of GiB"):
        open_store(Manifest.load(there), 32, "squash")


def test_bytes_are_told_in_whole_units() -> None:
    told: list[int] = []
    take = of_bytes(told.append, 10)
    for count in (4, 7, 30, 9):
        take(count)
    assert sum(told) == 5
