"""The pixel store is right, shared, bounded, and rebuilt when it isn't right."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from carray.config import Fit
from carray.data.manifest import Manifest
from carray.data.pixels.decode import read_square
from carray.data.pixels.store import PixelStore, build_store, open_store, store_bytes, store_side
from carray.data.preparation.prepare import prepare
from carray.errors import ConfigError, DataError, DiskError
from carray.typing import Advance
from tests.data.pictures import image_folder, save
from tests.data.preparation.test_sources import devkit


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return prepare(image_folder(tmp_path / "cars", {"a": 10, "b": 10}), tmp_path / "data")


def stamp(store: PixelStore) -> int:
    """Changes when the store is rebuilt."""
    return (store.folder / "pixels.u8").stat().st_mtime_ns


@pytest.mark.parametrize(("size", "side"), [(224, 256), (64, 80), (96, 112), (384, 440), (16, 24)])
def test_the_side_leaves_room_to_crop(size: int, side: int) -> None:
    assert store_side(size) == side


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_each_row_is_its_image(manifest: Manifest, fit: Fit) -> None:
    store = open_store(manifest, 28, fit)
    assert store.pixels.shape == (20, 32, 32, 3)
    assert store.pixels.dtype == np.uint8
    for row, path in enumerate(manifest.included["path"]):
        assert (store.pixels[row] == read_square(Path(path).read_bytes(), 32, fit)).all()
    with pytest.raises(ValueError, match="read-only"):
        store.pixels[0] = 0


def test_a_place_for_the_store_can_be_named(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARRAY_STORE", str(tmp_path / "pixels"))
    store = open_store(manifest, 28, "squash")
    assert store.folder.is_relative_to(tmp_path / "pixels")
    assert not (manifest.folder / "store").exists()
    monkeypatch.delenv("CARRAY_STORE")
    own = open_store(manifest, 28, "squash")
    monkeypatch.setenv("CARRAY_STORE", str(tmp_path / "others"))
    assert open_store(manifest, 28, "squash").folder == own.folder, "one that is there is used"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_data_folder_that_cannot_be_written_names_the_cure(manifest: Manifest) -> None:
    manifest.folder.chmod(0o555)
    try:
        with pytest.raises(DataError, match="name a folder for it, as in CARRAY_STORE"):
            open_store(manifest, 28, "squash")
    finally:
        manifest.folder.chmod(0o755)


def test_boxes_are_cut_as_the_manifest_says(tmp_path: Path) -> None:
    cut = prepare(
        devkit(tmp_path / "s"), tmp_path / "d", crop="box", margin=0.1, val_size=0, blend_size=0
    )
    store = open_store(cut, 28, "squash")
    data = Path(cut.included["path"][0]).read_bytes()
    assert (store.pixels[0] == read_square(data, 32, "squash", (10, 5, 70, 50), 0.1)).all()


def test_a_store_is_built_once_and_needs_no_images_then(manifest: Manifest, tmp_path: Path) -> None:
    first = open_store(manifest, 28, "squash")
    shutil.rmtree(tmp_path / "cars")
    again = open_store(Manifest.load(tmp_path / "data"), 28, "squash")
    assert stamp(again) == stamp(first)
    assert (again.pixels == first.pixels).all()


def test_other_splits_of_the_same_images_keep_the_store(manifest: Manifest, tmp_path: Path) -> None:
    first = stamp(open_store(manifest, 28, "squash"))
    again = prepare(tmp_path / "cars", tmp_path / "data", seed=9)
    assert again.hash != manifest.hash
    assert stamp(open_store(again, 28, "squash")) == first


def test_a_stale_store_is_rebuilt(manifest: Manifest, tmp_path: Path) -> None:
    open_store(manifest, 28, "squash")
    image_folder(tmp_path / "cars", {"c": 10}, first_seed=90)
    grown = prepare(tmp_path / "cars", tmp_path / "data")
    assert open_store(grown, 28, "squash").pixels.shape[0] == 30


def flip_byte(store: PixelStore) -> None:
    with (store.folder / "pixels.u8").open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)
        file.seek(5000)
        file.write(bytes([byte[0] ^ 255]))


def cut_short(store: PixelStore) -> None:
    os.truncate(store.folder / "pixels.u8", 5000)


def forge_sums(store: PixelStore) -> None:
    (store.folder / "checksums.u32").write_bytes(bytes(80))


def break_stamp(store: PixelStore) -> None:
    text = json.loads((store.folder / "store.json").read_text())
    (store.folder / "store.json").write_text(json.dumps({**text, "version": 0}))


@pytest.mark.parametrize("harm", [flip_byte, cut_short, forge_sums, break_stamp])
def test_a_corrupted_store_is_rebuilt(manifest: Manifest, harm: object) -> None:
    assert callable(harm)
    first = open_store(manifest, 28, "squash")
    pixels, inode = np.array(first.pixels), stamp(first)
    del first
    harm(open_store(manifest, 28, "squash"))
    again = open_store(manifest, 28, "squash")
    assert stamp(again) != inode
    assert (again.pixels == pixels).all()


def test_verify_finds_a_changed_pixel(manifest: Manifest) -> None:
    store = open_store(manifest, 28, "squash")
    store.verify()
    flip_byte(store)
    with pytest.raises(DataError, match="is corrupted"):
        store.verify()


def test_a_changed_or_missing_image_is_named(manifest: Manifest, tmp_path: Path) -> None:
    image = tmp_path / "cars" / "a" / "03.jpg"
    save(image, np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DataError, match=r"03\.jpg has changed"):
        open_store(manifest, 28, "squash")
    image.unlink()
    with pytest.raises(DataError, match=r"03\.jpg can't be read \(No such file"):
        open_store(manifest, 28, "squash")
    assert not [path for path in (tmp_path / "data" / "store").iterdir() if path.is_dir()]


def test_the_budget_evicts_what_was_used_longest_ago(manifest: Manifest, tmp_path: Path) -> None:
    stores = tmp_path / "data" / "store"
    for age, size in ((300, 28), (200, 42), (100, 56)):
        folder = open_store(manifest, size, "squash").folder
        used = (folder / "store.json").stat().st_mtime - age
        os.utime(folder / "store.json", (used, used))
    open_store(manifest, 28, "squash")  # used again: now the youngest
    both = store_bytes(20, 32) + store_bytes(20, 64) + store_bytes(20, 24)
    open_store(manifest, 16, "squash", store_budget_gib=(both + 9000) / 2**30)
    left = {path.name for path in stores.iterdir() if path.is_dir()}
    assert left == {"32-squash", "64-squash", "24-squash"}


def test_a_store_over_the_budget_or_the_disk_is_refused_with_the_numbers(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match=r"takes 0\.01 GiB, the budget is 0\.001"):
        open_store(manifest, 448, "squash", store_budget_gib=0.001)
    full = shutil.disk_usage("/")._replace(total=10, used=9, free=2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(DiskError, match=r"has 0\.00: free some"):
        open_store(manifest, 28, "squash")


BUILD = """
import sys
from carray.data.manifest import Manifest
from carray.data.pixels.store import open_store
store = open_store(Manifest.load(sys.argv[1]), 224, "squash")
store.verify()
print((store.folder / "pixels.u8").stat().st_mtime_ns)
"""


def test_processes_that_build_at_once_share_one_store(manifest: Manifest) -> None:
    command = [sys.executable, "-c", BUILD, str(manifest.folder)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    told = [process.communicate(timeout=60)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(set(told)) == 1
    assert told[0].isdigit()


def test_an_interrupted_building_goes_on_where_it_was(manifest: Manifest) -> None:
    told: list[int] = []
    done = 3

    @contextmanager
    def interrupted(what: str, total: int) -> Iterator[Advance]:
        def advance(count: int) -> None:
            told.append(total)
            if len(told) == done:
                raise KeyboardInterrupt

        yield advance

    @contextmanager
    def counted(what: str, total: int) -> Iterator[Advance]:
        told.append(total)
        yield lambda count: None

    with pytest.raises(KeyboardInterrupt):
        open_store(manifest, 28, "squash", interrupted)
    (aside,) = (manifest.folder / "store").glob(".32-squash.*")
    pixels = np.memmap(aside / "pixels.u8", np.uint8, "r+", shape=(told[0], 32, 32, 3))
    pixels[0] ^= 1  # as a crash of the machine may leave it
    store = open_store(manifest, 28, "squash", counted)
    assert 0 < told[-1] <= told[0] - done + 1
    assert not aside.exists()
    store.verify()
    fresh = np.array(store.pixels)
    cut_short(store)
    assert np.array_equal(open_store(manifest, 28, "squash").pixels, fresh)


def test_leftovers_of_a_killed_builder_are_removed(manifest: Manifest, tmp_path: Path) -> None:
    leftover = tmp_path / "data" / "store" / ".32-squash.123-abc"
    leftover.mkdir(parents=True)
    (leftover / "pixels.u8").write_bytes(bytes(100))
    open_store(manifest, 28, "squash")
    assert not leftover.exists()


def test_warming_reports_what_is_there(manifest: Manifest) -> None:
    warmed = build_store(manifest.folder, 28, "pad", verify=True)
    assert (warmed.images, warmed.side, warmed.fit) == (20, 32, "pad")
    with pytest.raises(ConfigError, match="fit='stretch'"):
        build_store(manifest.folder, 28, "stretch")
    with pytest.raises(ConfigError, match="image_size=4"):
        build_store(manifest.folder, 4)
