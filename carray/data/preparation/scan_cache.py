"""What a scan finds of each image, kept on disk so that an interrupted scan goes on."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import lock_descriptor

from carray.data.pixels.decode import Box, Pixels
from carray.errors import DataError

THUMB_SIDE = 32  # of the thumbnail that confirms a near-duplicate
VERSION = 1  # of what is hashed and how; what another one found is looked at again
_RECORD = np.dtype(
    [
        ("checksum", "<u4"),  # CRC-32 of the rest
        ("key", "V32"),
        ("content_hash", "V32"),
        ("perceptual_hash", "V8"),
        ("size", "<i4", 2),
        ("thumb", "u1", (THUMB_SIDE, THUMB_SIDE, 3)),
    ]
)


@dataclass(frozen=True)
class ImageScan:
    """What one image holds; after a `problem` the rest is empty."""

    problem: str = ""
    content_hash: str = ""
    """sha256 of the file's bytes, hex."""
    perceptual_hash: str = ""
    """64-bit pHash, hex (Zauner, "Implementation and Benchmarking of Perceptual Image Hash
    Functions", 2010)."""
    width: int = 0
    height: int = 0
    thumb: Pixels | None = None
    """(THUMB_SIDE, THUMB_SIDE, 3)."""


class ScanCache:
    """Readable images by the state of their files, each written as soon as it is seen; one without
    a file keeps nothing."""

    def __init__(
        self, descriptor: int | None = None, records: npt.NDArray[Any] | tuple[()] = ()
    ) -> None:
        self._descriptor = descriptor
        self._records = records
        self._rows = {record["key"].tobytes(): row for row, record in enumerate(records)}

    def find(self, path: Path, box: Box | None, margin: float) -> ImageScan | None:
        """Return what an earlier scan saw, if the file is as it was."""
        row = self._rows.get(key_of(path, box, margin)) if self._rows else None
        if row is None:
            return None
        record = self._records[row]
        content, perceptual = (
            record[name].tobytes().hex() for name in ("content_hash", "perceptual_hash")
        )
        width, height = record["size"].tolist()
        return ImageScan("", content, perceptual, width, height, record["thumb"])

    def add(self, key: bytes, seen: ImageScan) -> None:
        """Keep what a scan saw, unless it can't be read; any thread may call this."""
        if self._descriptor is None or seen.problem:
            return
        hashes = (
            np.void(bytes.fromhex(each)) for each in (seen.content_hash, seen.perceptual_hash)
        )
        record = np.array(
            (0, np.void(key), *hashes, (seen.width, seen.height), seen.thumb), _RECORD
        )
        record["checksum"] = _checksum(record)
        os.write(self._descriptor, record.tobytes())  # one call that appends: threads don't mix


def cache_path(folder: Path) -> Path:
    """Return where a scan for the data folder `folder` is kept until that folder is written."""
    return folder.with_name(f".{folder.name}.scan")


def num_cached(log: Path) -> int:
    """Return the images that an interrupted scan had read."""
    return log.stat().st_size // _RECORD.itemsize if log.exists() else 0


@contextmanager
def open_cache(path: Path) -> Iterator[ScanCache]:
    """Open the log `path`, begun or not; what a killed writer left half written is cut off.

    Raises:
        DataError: another process holds it, or it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            if not lock_descriptor(file.fileno(), blocking=False):
                raise DataError(f"another process keeps what it reads in {path}: wait for it")
            records = np.fromfile(path, _RECORD)
            file.truncate(len(records) * _RECORD.itemsize)
            whole = [record["checksum"] == _checksum(record) for record in records]
            yield ScanCache(file.fileno(), records[np.array(whole, bool)])
    except OSError as error:
        raise DataError(
            f"{path} can't be written ({error.strerror or error}): choose another --out, or free "
            "some disk"
        ) from None


def key_of(path: Path, box: Box | None, margin: float) -> bytes:
    """Return what names an image in its present state; empty for a file that isn't there."""
    try:
        state = path.stat()
    except OSError:
        return b""
    what = (VERSION, str(path), state.st_size, state.st_mtime_ns, state.st_ino, box, margin)
    return sha256(repr(what).encode()).digest()


def _checksum(record: Any) -> int:
    return zlib.crc32(record.tobytes()[4:])
