"""The pixel store: every included image decoded once to uint8, memory-mapped, shared by all.

FOLDER/store/256-squash/
  pixels.u8      (N, side, side, 3) RGB, row i is `manifest.included` row i
  checksums.u32  CRC-32 of each row
  store.json     side, fit, what the pixels are of; touched at each use
"""

from __future__ import annotations

import errno
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from carray import config
from carray.data.manifest import BOX_COLUMNS, Manifest
from carray.data.parallel import map_images
from carray.data.pixels.decode import Box, UnreadableImage, read_square
from carray.data.remote_data import cache_gib, cached_stores, fetch_store
from carray.errors import DataError, DiskError, UnsuitableData
from carray.files import by_last_use, folder_bytes, locked, write_text
from carray.progress import silent
from carray.storage.mirror import mirror_of
from carray.typing import GIB, Progress

VERSION = 1
CHECK_BYTES = 256 * 2**20  # of pixels, checked at each opening; `verify` checks them all
SPARE_BYTES = GIB // 2  # disk that a new store leaves free


class _StoreKey(BaseModel):
    """`store.json`."""

    version: Literal[1] = 1
    manifest_hash: str
    pixels_hash: str
    images: int
    side: int
    fit: config.Fit
    checksum: str
    """sha256 of `checksums.u32`."""


@dataclass(frozen=True, eq=False)
class PixelStore:
    """Decoded pixels; `pixels[i]` is the manifest's included row i, (side, side, 3) RGB."""

    folder: Path
    pixels: npt.NDArray[np.uint8]
    side: int
    fit: config.Fit

    def verify(self) -> None:
        """Check every image against its checksum.

        Raises:
            DataError: pixels have changed on disk; the store's folder is named.
        """
        sums = np.fromfile(self.folder / "checksums.u32", np.uint32)
        if not _rows_match(self.pixels, sums, range(len(sums))):
            raise DataError(f"the pixel store {self.folder} is corrupted: remove it, it is rebuilt")


class StoreBuildResult(BaseModel):
    """What `build_store` leaves."""

    folder: str
    images: int
    side: int
    fit: config.Fit
    gib: float
    seconds: float


def build_store(
    folder: Path | str,
    image_size: int,
    fit: str = "squash",
    progress: Progress = silent,
    *,
    store_budget_gib: float | None = None,
    verify: bool = False,
) -> StoreBuildResult:
    """Build a data folder's store of one image size and fit, if it isn't there already.

    Raises:
        DataError: `open_store` can't build it, or `verify` finds it corrupted.
        ConfigError: the image size or the fit can't be.
    """
    asked = config.build_config({"image_size": image_size, "fit": fit})
    if store_budget_gib is not None and not 0 <= store_budget_gib < float("inf"):
        raise DataError(f"--store-budget {store_budget_gib:g} must be a number from 0")
    start = time.monotonic()
    store = open_store(
        Manifest.load(folder),
        asked.image_size,
        asked.fit,
        progress,
        store_budget_gib=store_budget_gib,
    )
    if verify:
        store.verify()
    return StoreBuildResult(
        folder=str(store.folder),
        images=len(store.pixels),
        side=store.side,
        fit=store.fit,
        gib=store.pixels.nbytes / GIB,
        seconds=time.monotonic() - start,
    )


def store_side(image_size: int) -> int:
    """Return the side of the stored squares in pixels: 8/7 of what the backbone sees, room to
    crop, up to a multiple of 8."""
    return -(-round(image_size * 8 / 7) // 8) * 8


def store_bytes(num_images: int, side: int) -> int:
    """Return the disk that a store takes."""
    return num_images * (side * side * 3 + 4)


def open_store(
    manifest: Manifest,
    image_size: int,
    fit: config.Fit,
    progress: Progress = silent,
    *,
    store_budget_gib: float | None = None,
) -> PixelStore:
    """Open the store of one image size and fit, building it on first use or when it is stale.

    A valid store needs no source images. Of processes that build at once one works, the others
    wait; building that was interrupted goes on where it was. Stores used longest ago make room
    under the budget (the manifest's, unless given).

    Raises:
        DataError: an image is gone or has changed since `prepare`; the store is larger than the
            budget; its place can't be written.
        DiskError: the store is larger than the disk's free space.
    """
    side = store_side(image_size)
    beside_data = manifest.folder / "store" / f"{side}-{fit}"
    folder = store_place(manifest) / beside_data.name
    for there in (beside_data, folder):
        if store := _valid(there, manifest, side, fit):
            return store
    _check_writable(folder.parent)
    with _locked(folder, _aside(folder, manifest)):
        if store := _valid(folder, manifest, side, fit):
            return store
        budget = store_budget_gib
        budget = manifest.settings.store_budget_gib if budget is None else budget
        _make_room(folder, manifest, side, budget)
        if not fetch_store(manifest.folder, folder, len(manifest.included), progress):
            _build(folder, manifest, side, fit, progress)
    store = _valid(folder, manifest, side, fit)
    if store is None:
        raise DataError(f"the pixel store {folder} was built but reads back wrong: check the disk")
    return store


def is_stored(manifest: Manifest, image_size: int, fit: config.Fit) -> bool:
    """Say whether a store is there, by its stamp and its size; no pixel is read."""
    side = store_side(image_size)
    name = f"{side}-{fit}"
    return any(
        _pixels_of(place / name, manifest, side, fit) is not None
        for place in (manifest.folder / "store", store_place(manifest))
    )


def store_place(manifest: Manifest) -> Path:
    """Return where stores of these pixels are built: in the data folder, or in `$CARRAY_STORE`."""
    if named := os.environ.get("CARRAY_STORE"):
        return Path(named).absolute() / manifest.pixels_hash[:16]
    return manifest.folder / "store"


def _check_writable(place: Path) -> None:
    """Refuse a place that can't be written, a read-only data folder say.

    Raises:
        DataError: it can't; with the cure.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        refused = "" if os.access(place, os.W_OK) else "no permission"
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        refused = str(error.strerror)
    if refused:
        raise DataError(
            f"the pixel store can't be written below {place} ({refused}): name a folder for it, as "
            "in CARRAY_STORE=/tmp/pixels, on every machine that trains"
        )


def _valid(folder: Path, manifest: Manifest, side: int, fit: config.Fit) -> PixelStore | None:
    """Return the store in `folder`, None if it is missing, stale or corrupted."""
    pixels = _pixels_of(folder, manifest, side, fit)
    if pixels is None:
        return None
    sums = np.fromfile(folder / "checksums.u32", np.uint32)
    if not _rows_match(pixels, sums, _sample(len(sums), side)):
        return None
    with suppress(OSError):  # a read-only data folder keeps no order of use
        os.utime(folder / "store.json")
    return PixelStore(folder, pixels, side, fit)


def _pixels_of(
    folder: Path, manifest: Manifest, side: int, fit: config.Fit
) -> npt.NDArray[np.uint8] | None:
    """Map the pixels of the store in `folder`, unread; None if it is missing or stale."""
    try:
        stamp = _StoreKey.model_validate_json((folder / "store.json").read_text(encoding="utf-8"))
        sums = (folder / "checksums.u32").read_bytes()
    except (OSError, ValidationError):
        return None
    fresh = (stamp.pixels_hash, stamp.side, stamp.fit) == (manifest.pixels_hash, side, fit)
    if not fresh or sha256(sums).hexdigest() != stamp.checksum:
        return None
    return _mapped(folder / "pixels.u8", (stamp.images, side, side, 3))


def _mapped(path: Path, shape: tuple[int, int, int, int]) -> npt.NDArray[np.uint8] | None:
    if not path.exists() or path.stat().st_size != int(np.prod(shape)):
        return None
    return np.memmap(path, np.uint8, "r", shape=shape)


def _sample(num_images: int, side: int) -> npt.NDArray[np.int64]:
    """Return the rows that an opening checks: all of a small store, evenly spread of a large."""
    few = max(1, CHECK_BYTES // (side * side * 3))
    if num_images <= few:
        return np.arange(num_images)
    return np.linspace(0, num_images - 1, few).astype(np.int64)


def _rows_match(
    pixels: npt.NDArray[np.uint8],
    sums: npt.NDArray[np.uint32],
    rows: range | npt.NDArray[np.int64],
) -> bool:
    return len(pixels) == len(sums) and all(zlib.crc32(pixels[row]) == sums[row] for row in rows)


@contextmanager
def _locked(folder: Path, keep: Path) -> Iterator[None]:
    """Hold the builders' lock of one store; remove what was begun aside, but not `keep`."""
    with locked(folder.parent / f".lock-{folder.name}"):
        for leftover in folder.parent.glob(f".{folder.name}.*"):  # of other pixels
            if leftover != keep:
                shutil.rmtree(leftover, ignore_errors=True)
        yield


def _make_room(folder: Path, manifest: Manifest, side: int, budget_gib: float) -> None:
    """Remove the stores used longest ago until the new one fits the budget and the disk."""
    need = store_bytes(len(manifest.included), side)
    what = f"the pixel store of {len(manifest.included):,} images at {side} px"
    if need > budget_gib * GIB:
        raise UnsuitableData(
            f"{what} takes {need / GIB:.2f} GiB, the budget is {budget_gib:g}: "
            "take a smaller image size, or raise --store-budget"
        )
    shutil.rmtree(folder, ignore_errors=True)  # stale or corrupted
    mirror = mirror_of(manifest.folder)
    marks: Iterator[Path] = folder.parent.glob("*/store.json")
    if mirror:
        marks, budget_gib = cached_stores(mirror), cache_gib()
    others = by_last_use(marks)
    while others and sum(map(folder_bytes, others)) + need > budget_gib * GIB:
        with suppress(FileNotFoundError):  # another process makes room, too
            shutil.rmtree(others.pop(0))
    begun = _aside(folder, manifest).glob("*")
    free = shutil.disk_usage(folder.parent).free + sum(512 * p.stat().st_blocks for p in begun)
    if need + SPARE_BYTES > free:
        raise DiskError(
            f"{what} takes {need / GIB:.2f} GiB and leaves {SPARE_BYTES / GIB:g} free, but the "
            f"disk of {folder.parent} has {free / GIB:.2f}: free some, or take a smaller size"
        )


def _build(
    folder: Path, manifest: Manifest, side: int, fit: config.Fit, progress: Progress
) -> None:
    """Fill a store aside, then rename it; one whose building was interrupted goes on."""
    aside = _aside(folder, manifest)
    try:
        aside.mkdir(exist_ok=True)
        num_images = len(manifest.included)
        pixels = _open_array(aside / "pixels.u8", np.uint8, (num_images, side, side, 3))
        sums = _open_array(aside / "checksums.u32", np.uint32, (num_images,))
        filled = (bool(own) and zlib.crc32(pixels[row]) == own for row, own in enumerate(sums))
        missing = [row for row, is_filled in enumerate(filled) if not is_filled]
        fill_store(pixels, sums, manifest, side, fit, missing, progress)
        pixels.flush()
        sums.flush()
        stamp = _StoreKey(
            manifest_hash=manifest.hash,
            pixels_hash=manifest.pixels_hash,
            images=num_images,
            side=side,
            fit=fit,
            checksum=sha256(sums.tobytes()).hexdigest(),
        )
        write_text(aside / "store.json", stamp.model_dump_json(indent=1) + "\n")
    except Exception:  # whoever interrupts keeps what is done
        shutil.rmtree(aside, ignore_errors=True)
        raise
    aside.replace(folder)


def _aside(folder: Path, manifest: Manifest) -> Path:
    """Return where the store of these pixels is built; its builder holds the lock."""
    return folder.with_name(f".{folder.name}.{manifest.pixels_hash[:16]}")


def _open_array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Map an array of a file for writing; zeros where it isn't there yet."""
    with path.open("ab") as file:
        file.truncate(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return np.memmap(path, dtype, "r+", shape=shape)


def fill_store(
    pixels: npt.NDArray[np.uint8],
    sums: npt.NDArray[np.uint32],
    manifest: Manifest,
    side: int,
    fit: config.Fit,
    rows: Sequence[int],
    progress: Progress,
) -> None:
    """Decode the included images `rows` into `pixels`, (N, side, side, 3), and their CRC-32 into
    `sums`, (N,).

    Raises:
        DataError: an image is gone or has changed since it was prepared.
    """
    table = manifest.included
    paths, hashes = table["path"].tolist(), table["content_hash"].tolist()
    boxes = table[list(BOX_COLUMNS)].to_numpy(np.int64).tolist()

    def fill(row: int) -> None:
        cropped = manifest.crop == "box" and boxes[row][0] >= 0
        box: Box | None = tuple(boxes[row]) if cropped else None
        data = _read_unchanged(Path(paths[row]), hashes[row])
        try:
            pixels[row] = read_square(data, side, fit, box, manifest.margin)
        except UnreadableImage as error:
            raise DataError(f"{paths[row]} can't be decoded: {error}") from None
        sums[row] = zlib.crc32(pixels[row])

    for _ in map_images(fill, rows, f"pixel store {side} px, {fit}", progress):
        pass


def _read_unchanged(path: Path, content_hash: str) -> bytes:
    again = "run `carray data prepare` again"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} can't be read ({error.strerror}): bring it back, or {again}"
        ) from None
    if sha256(data).hexdigest() != content_hash:
        raise DataError(f"{path} has changed since the data were prepared: {again}")
    return data
