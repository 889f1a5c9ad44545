"""Files of nodes that see none of the driver's folders: brought, sent, acknowledged."""

from __future__ import annotations

import errno
import os
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from carray.config import TrialConfig
from carray.data.manifest import Manifest
from carray.data.pixels.store import open_store
from carray.errors import ClusterError, DiskError, WeightsError
from carray.lanes import depot_client, sent_files
from carray.lanes.depot import Depot, StudyPlaces, remove_left
from carray.lanes.depot_client import DriverFolder
from carray.lanes.lane_rank import answer_to, node_fault
from carray.lanes.messages import LaneOrder
from carray.lanes.sent_files import NodeFolders, SendingRunner
from carray.models.weights import find_weights
from carray.records import TrialFolder
from carray.storage.remote import FileStamp
from carray.training.epoch_order import EpochOrder, EpochOutcome
from carray.training.ranks import SoloRanks
from carray.training.teacher import card_hash
from tests.lanes.fakes import LocalDepot
from tests.training.orders import new_runner, run, scores_of, small_config

NONCE = "left-by-the-driver"


@pytest.fixture
def places(tmp_path: Path) -> StudyPlaces:
    study = tmp_path / "driver" / "s"
    (study / "trials" / "0003").mkdir(parents=True)
    (study / NONCE).touch()
    return StudyPlaces(
        str(study), NONCE, str(tmp_path / "data"), str(tmp_path / "stores"), "ab" * 9
    )


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depot_client, "CHUNK_BYTES", 1000)


@dataclass
class Counter:
    """Counts epochs in its checkpoint, as training would go on from one."""

    memory: tuple[str, int] = ("", 0)
    found: list[int] = field(default_factory=list)
    """Epochs behind it, each time that it had none in memory."""
    keeps: bool = True

    def holds(self, order: EpochOrder) -> bool:
        return self.memory == (order.trial, order.epoch - 1)

    def run_epoch(self, order: EpochOrder) -> EpochOutcome:
        folder = TrialFolder(Path(order.folder))
        state = folder.checkpoint / "state"
        if not self.holds(order):
            self.found.append(len(state.read_bytes()) // 1500 if state.exists() else 0)
        folder.checkpoint.mkdir(exist_ok=True)
        state.write_bytes(bytes(1500 * order.epoch))
        (folder.checkpoint / "meta.json").write_text(str(order.epoch))
        if order.epoch % 2:
            folder.weights_file.write_text(f"weights of {order.epoch}")
        self.memory = order.trial, order.epoch
        return EpochOutcome({}, False, "", 1, "", None)

    def finish(self, order: EpochOrder) -> None:
        folder = TrialFolder(Path(order.folder))
        folder.logits_file.write_text(folder.weights_file.read_text())
        if not order.keeps_checkpoint:
            shutil.rmtree(folder.checkpoint)

    def release(self) -> None:
        self.memory = "", 0


def apart(places: StudyPlaces, cache: Path) -> tuple[SendingRunner, Counter]:
    """Return the runner of a node without the driver's folder, and what it trains with."""
    elsewhere = StudyPlaces(places.study, "not-here", places.data, places.stores, "ab" * 9)
    trainer, folders = Counter(), NodeFolders(elsewhere, LocalDepot(places), cache)
    return SendingRunner(trainer, SoloRanks(), folders), trainer


def order_of(places: StudyPlaces, epoch: int, **changes: object) -> EpochOrder:
    folder = f"{places.study}/trials/0003"
    base = EpochOrder(
        trial="s/0003", folder=folder, data="s3://b/cars", config=TrialConfig(), epoch=epoch
    )
    return base.model_copy(update=changes)


def test_a_trial_goes_on_elsewhere_from_what_the_driver_acknowledged(
    places: StudyPlaces, tmp_path: Path
) -> None:
    (first, one), (second, two) = (apart(places, tmp_path / name) for name in "ab")
    at_driver = TrialFolder(Path(places.study) / "trials" / "0003")
    for epoch, runner in enumerate((first, first, second, second, first), 1):
        runner.run_epoch(order_of(places, epoch))
        assert (at_driver.checkpoint / "meta.json").read_text() == str(epoch)
        assert len((at_driver.checkpoint / "state").read_bytes()) == 1500 * epoch
        best = f"weights of {epoch - 1 + epoch % 2}"
        assert at_driver.weights_file.read_text() == best, "no older one takes its place"
    assert (one.found, two.found) == ([0, 4], [2])
    second.finish(order_of(places, 5))
    assert at_driver.logits_file.read_text() == "weights of 5"
    assert not at_driver.checkpoint.exists()
    for runner in (first, second):
        runner.release()
    assert not list(tmp_path.glob("[ab]/lanes/*/trials/[0-9]*"))
    assert sorted(each.name for each in at_driver.path.parents[1].iterdir()) == [NONCE, "trials"]


def test_a_trial_that_continues_another_brings_what_it_begins_with(
    places: StudyPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = apart(places, tmp_path / "a")
    first.run_epoch(order_of(places, 1))
    second, trainer = apart(places, tmp_path / "b")
    brought: list[str] = []

    def run(here: EpochOrder) -> EpochOutcome:
        brought.extend(sorted(each.name for each in Path(str(here.continues)).iterdir()))
        return EpochOutcome({}, False, "", 1, "", None)

    monkeypatch.setattr(trainer, "run_epoch", run)
    target = f"{places.study}/trials/0009"
    source = f"{places.study}/trials/0003"
    second.run_epoch(order_of(places, 2, trial="s/0009", folder=target, continues=source))
    assert brought == ["best.safetensors", "checkpoint"]


def test_real_training_goes_on_elsewhere_as_if_it_had_never_moved(
    places: StudyPlaces, toy_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch on another node, one of which holds what it did two epochs before."""
    monkeypatch.setattr(depot_client, "CHUNK_BYTES", 2**20)
    config, data = small_config(dropout=0.2), toy_manifest.folder
    alone = [scores_of(row) for row in run(new_runner(), tmp_path / "alone", data, config)]
    elsewhere = StudyPlaces(places.study, "not-here", str(data), places.stores, toy_manifest.hash)

    def node(name: str) -> SendingRunner:
        folders = NodeFolders(elsewhere, LocalDepot(places), tmp_path / name)
        return SendingRunner(new_runner(), SoloRanks(), folders)

    first, second = node("a"), node("b")
    rows = []
    for epoch, runner in enumerate((first, second, first), 1):
        order = order_of(places, epoch, data=str(data), config=config)
        rows.append(scores_of(runner.run_epoch(order).metrics))
    assert rows == alone
    second.finish(order_of(places, 3, data=str(data), config=config))
    left = TrialFolder(Path(places.study) / "trials" / "0003")
    assert left.logits("val").shape == (len(toy_manifest.rows("val")), 12)
    assert not left.checkpoint.exists()


def test_a_node_without_weights_gets_the_drivers(
    places: StudyPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CARRAY_WEIGHTS", raising=False)
    theirs = tmp_path / "own" / "test_resnet.safetensors"
    theirs.parent.mkdir()
    theirs.write_bytes(bytes(3500))
    has = replace(places, weights={"test_resnet": str(theirs)})
    config = small_config().model_copy(update={"pretrained": True})
    order = order_of(places, 1, config=config, data=str(tmp_path))
    monkeypatch.setattr(sent_files, "has_data", lambda *which: True)

    def node() -> NodeFolders:
        return NodeFolders(has, LocalDepot(has), tmp_path / "a")

    first = node().here(order).weights
    found = find_weights("test_resnet", True, first)
    assert found is not None
    assert found.read_bytes() == theirs.read_bytes()
    assert found.name == theirs.name, "a trial's `initialisation` has it"
    assert first != str(theirs.parent)
    monkeypatch.setattr(DriverFolder, "fetch", None)  # another rank finds it there
    assert node().here(order).weights == first
    named = order.model_copy(update={"weights": str(theirs.parent)})
    assert node().here(named).weights == str(theirs.parent), "its own go first"
    scratch = order_of(places, 1, data=str(tmp_path))
    assert node().here(scratch).weights is None
    theirs.unlink()
    with pytest.raises(WeightsError, match=r"the driver's weights of 'test_resnet', .+, are gone"):
        node().here(order)


def test_a_node_without_the_teacher_gets_the_drivers(
    places: StudyPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sent_files, "has_data", lambda *which: True)
    theirs = tmp_path / "models" / "top3@1"
    files = {"card.json": b"{}", "members/0/weights.safetensors": bytes(3500)}
    for name, content in files.items():
        (theirs / name).parent.mkdir(parents=True, exist_ok=True)
        (theirs / name).write_bytes(content)
    named = "models/top3@1"  # as it was typed in the driver's folder
    has = replace(places, teachers={named: card_hash(theirs)})
    at_driver = LocalDepot(replace(places, teachers={str(theirs): card_hash(theirs)}))
    config = small_config(distill__teacher=named)
    order = order_of(places, 1, config=config, data=str(tmp_path))

    def node() -> NodeFolders:
        return NodeFolders(has, at_driver, tmp_path / "a")

    first = node().here(order).teacher
    assert first is not None
    got = {name: (Path(first) / name).read_bytes() for name in files}
    assert got == files
    assert node().here(order).config == order.config
    with monkeypatch.context() as patched:
        patched.setattr(DriverFolder, "fetch_folder", None)  # another rank finds it there
        assert node().here(order).teacher == first
        patched.chdir(tmp_path)
        assert node().here(order).teacher == named, "seen there, it doesn't travel"
    assert node().here(order_of(places, 1, data=str(tmp_path))).teacher is None
    shutil.rmtree(first)
    shutil.rmtree(theirs)
    with pytest.raises(
        WeightsError, match=r"the driver's package 'models/top3@1', a teacher, is gone"
    ):
        node().here(order)


def test_what_the_driver_has_no_room_for_leaves_the_order_undone(
    places: StudyPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, _ = apart(places, tmp_path / "a")

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), places.study)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ClusterError) as refused:
        runner.run_epoch(order := order_of(places, 1))
    assert "what s/0003 left is not at the driver: the disk of " in str(refused.value)
    assert node_fault(refused.value, LaneOrder("epoch", order)) == "", "no other lane could"
    assert answer_to(refused.value, LaneOrder("epoch", order)).is_undone


def test_pieces_that_are_not_whole_are_never_put_in_place(places: StudyPlaces) -> None:
    depot, file = LocalDepot(places), Path(places.study) / "trials" / "0003" / "logits.npz"
    file.write_bytes(bytes(2500))
    folder = DriverFolder(depot, "study", "driver://s")
    stamp = folder.stamp("trials/0003/logits.npz")
    assert stamp is not None
    assert stamp.size == 2500
    depot.write("t", "logits.npz", 0, bytes(1000))
    with pytest.raises(ClusterError, match="came in pieces that aren't whole"):
        depot.place("t", "study/trials/0003/logits.npz", {"logits.npz": stamp})
    assert file.stat().st_size == 2500
    remove_left(Path(places.study))
    assert sorted(each.name for each in Path(places.study).iterdir()) == [NONCE, "trials"]
    with pytest.raises(FileNotFoundError):
        folder.fetch("trials/0003/none", Path(places.study) / "none")
    assert folder.files("trials/0004") == {}


def test_a_full_disk_of_the_driver_is_named_by_the_driver(
    places: StudyPlaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskError, match=r"the disk of .* has too little room"):
        Depot(places).write("t", "state", 0, b"1")


def test_the_pixels_travel_once_and_the_photographs_stay(
    places: StudyPlaces,
    toy_manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CARRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(depot_client, "CHUNK_BYTES", 2**20)
    there = open_store(toy_manifest, 16, "squash")
    at_driver = StudyPlaces(
        places.study, NONCE, str(toy_manifest.folder), places.stores, toy_manifest.hash
    )
    lost = order_of(places, 1, data="/no/such/cars")
    seen = NodeFolders(at_driver, LocalDepot(at_driver)).here(lost).data
    assert Path(seen).is_relative_to(tmp_path / "cache" / "data")
    manifest = Manifest.load(seen)
    assert manifest.hash == toy_manifest.hash
    store = open_store(manifest, 16, "squash")
    assert store.folder.is_relative_to(tmp_path / "cache")
    assert (store.pixels == there.pixels).all()
    drawn = open_store(manifest, 21, "crop")  # a size that no driver has built before
    assert drawn.folder.is_relative_to(tmp_path / "cache")
    assert (drawn.pixels == open_store(toy_manifest, 21, "crop").pixels).all()
    shared = order_of(places, 1, data=str(toy_manifest.folder))
    assert NodeFolders(at_driver, LocalDepot(at_driver)).here(shared) == shared


def test_folders_of_sessions_long_gone_are_removed(
    places: StudyPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gone", "busy"):
        (tmp_path / "lanes" / name).mkdir(parents=True)
        (tmp_path / "lanes" / name / "used").touch()
    old = time.time() - sent_files.LEFT_SECONDS - 1
    os.utime(tmp_path / "lanes" / "gone" / "used", (old, old))
    runner, _ = apart(places, tmp_path)
    runner.run_epoch(order_of(places, 1))
    assert sorted(each.name for each in (tmp_path / "lanes").iterdir()) == ["busy", "not-here"]


def test_a_folder_that_another_lane_removes_just_then_ends_no_trial(
    places: StudyPlaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "cache" / "lanes" / "old"
    old.mkdir(parents=True)
    (old / "used").touch()
    folders = NodeFolders(replace(places, nonce="unseen"), LocalDepot(places), tmp_path / "cache")

    def removed_meanwhile() -> float:
        shutil.rmtree(old.parent, ignore_errors=True)
        return 0.0

    monkeypatch.setattr(sent_files.time, "time", removed_meanwhile)
    folders._use()
    assert not old.exists()


def test_what_is_in_place_is_acknowledged_again(places: StudyPlaces) -> None:
    depot, stamps = Depot(places), {"best.safetensors": FileStamp(3, 1000.0)}
    depot.write("transfer", "best.safetensors", 0, b"abc")
    for _ in range(2):  # the depot died before it could answer, and is asked once more
        depot.place("transfer", "study/trials/0003/best.safetensors", stamps)
    with pytest.raises(ClusterError, match="aren't whole"):
        depot.place("transfer", "study/trials/0003/logits.npz", {"logits.npz": FileStamp(1, 1.0)})
