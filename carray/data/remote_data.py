"""Prepared data at a URL: the manifest and the pixel stores travel, the photographs stay.

A node fetches them into its cache once, however many processes ask, and forgets the stores that
were used longest ago once `$CARRAY_CACHE_GIB` is full.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock

from pydantic import BaseModel

from carray.errors import ConfigError, DataError
from carray.files import locked, written_aside
from carray.progress import silent
from carray.storage.cache import cache_folder
from carray.storage.mirror import Mirror, mirror_of, mirrored, mirrored_in
from carray.storage.remote import RemoteFolder
from carray.typing import GIB, Advance, Progress

MANIFEST_FILES = ("images.csv", "manifest.json")  # the last one makes it a data folder
STORE_FILES = ("pixels.u8", "checksums.u32", "store.json")  # the last one makes it a store
DEFAULT_CACHE_GIB = 100.0
MIB = 2**20


class PushResult(BaseModel):
    """What `push_data` leaves."""

    url: str
    stores: tuple[str, ...]
    """As in `256-squash`: side and fit."""
    gib: float
    """Of these stores."""


def push_data(
    folder: Path, stores: Iterable[Path], url: str, progress: Progress = silent
) -> PushResult:
    """Put a data folder's manifest and its pixel stores at a URL.

    Raises:
        DataError: the URL holds another data set.
        StorageError: it can't be reached or refuses.
    """
    remote = RemoteFolder(url)
    before = remote.read(MANIFEST_FILES[-1])
    if before is not None and before != (folder / MANIFEST_FILES[-1]).read_bytes():
        raise DataError(f"{remote} holds another data set: name another URL, or delete that one")
    files = {f"store/{store.name}/{name}": store / name for store in stores for name in STORE_FILES}
    there = remote.files("store")
    sizes = {name: file.stat().st_size for name, file in files.items()}
    wanted = [name for name in files if name not in there or there[name].size != sizes[name]]
    size = sum(sizes[name] for name in wanted)
    with progress(f"to {remote}", -(-size // MIB), "MiB") as advance:
        for name in wanted:
            remote.put(files[name], name, of_bytes(advance, MIB))
    for name in MANIFEST_FILES:
        remote.put(folder / name, name)
    sides = tuple(sorted({Path(name).parent.name for name in files}))
    return PushResult(url=str(remote), stores=sides, gib=sum(sizes.values()) / GIB)


def fetched_manifest(url: str) -> Path:
    """Return this node's folder of the data at `url`, with the manifest as it is there now.

    Raises:
        DataError: there is no data set.
        StorageError: the URL can't be reached or refuses.
    """
    return _fetched(mirrored(url, "data"))


def sent_manifest(driver: RemoteFolder, manifest_hash: str) -> Path:
    """Return this node's folder of the data set that the driver has, with its manifest.

    It is named by the data's hash, so that studies, and drivers, share it.
    """
    return _fetched(mirrored_in(sent_folder(manifest_hash), lambda: driver))


def sent_folder(manifest_hash: str) -> Path:
    """Return where this node keeps a data set that it has from a driver, there or not."""
    return cache_folder() / "data" / f"sent-{manifest_hash[:16]}"


def _fetched(mirror: Mirror) -> Path:
    with locked(mirror.folder / ".lock"):
        names = [name for name in MANIFEST_FILES if mirror.remote.stamp(name)]
        if len(names) < len(MANIFEST_FILES):
            raise DataError(
                f"there is no data set at {mirror.remote}: `carray data push DIR {mirror.remote}` "
                "puts one there"
            )
        mirror.pull_files(names)
    return mirror.folder


def fetch_store(data: Path, store: Path, images: int, progress: Progress = silent) -> bool:
    """Fetch the pixel store of a data folder that mirrors a URL; say whether it does.

    The caller holds the lock of `store`, whose name it has at the URL.

    Raises:
        DataError: the URL has no such store.
        StorageError: it can't be reached or refuses.
    """
    mirror = mirror_of(data)
    if mirror is None:
        return False
    below = f"store/{store.name}"
    there = mirror.remote.files(below)
    if f"{below}/{STORE_FILES[-1]}" not in there:
        side, _, fit = store.name.partition("-")
        raise DataError(
            f"{mirror.remote} has no pixel store of {side} px ({fit}): where the photographs are, "
            f"`carray data push DIR {mirror.remote} --size N` puts it there, N being the image size"
        )
    size = sum(there[f"{below}/{name}"].size for name in STORE_FILES)
    with (
        progress(f"pixel store {store.name} from {mirror.remote}", images) as advance,
        written_aside(store) as aside,
    ):
        for name in STORE_FILES:
            image_bytes = max(1, size // max(1, images))
            mirror.remote.fetch(f"{below}/{name}", aside / name, of_bytes(advance, image_bytes))
    return True


def cached_stores(mirror: Mirror) -> Iterator[Path]:
    """Yield `store.json` of the pixel stores of all data sets in this node's cache."""
    return mirror.folder.parent.glob("*/store/[0-9]*/store.json")


def cache_gib() -> float:
    """Return what this node's cache may take; raises ConfigError where that is no number."""
    given = os.environ.get("CARRAY_CACHE_GIB") or str(DEFAULT_CACHE_GIB)
    with suppress(ValueError):
        if (gib := float(given)) >= 0:
            return gib
    raise ConfigError(f"CARRAY_CACHE_GIB={given!r} must be a number of GiB, 0 or more")


def of_bytes(advance: Advance, unit: int) -> Advance:
    """Return what takes bytes, from any thread, and tells `advance` of whole units of them."""
    lock, done = Lock(), 0

    def take(count: int) -> None:
        nonlocal done
        with lock:
            before, done = done, done + count
            advance(done // unit - before // unit)

    return take
