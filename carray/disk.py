"""Recognises a full, exhausted or read-only disk among other errors, and says how full it is."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from pathlib import Path

from carray.errors import DiskError, causes

FULL = {  # what is wrong, and the cure
    errno.ENOSPC: ("has too little room", "free some"),
    errno.EDQUOT: ("is over its quota", "free some, or have the quota raised"),
    errno.EROFS: ("is read-only", "make it writable"),
}
PATTERNS = {  # by safetensors, sqlite, and by errors that came as another process's text
    errno.ENOSPC: r"os error 28\b|database or disk is full|No space left on device",
    errno.EDQUOT: r"os error 122\b|Disk quota exceeded",
    errno.EROFS: r"os error 30\b|attempt to write a readonly database|Read-only file system",
}
MIB, GIB = 2**20, 2**30


def disk_error(error: BaseException, *folders: str | os.PathLike[str]) -> DiskError | None:
    """Return what `error` says of a disk that can't be written; None if it is of another kind.

    `folders` are where the work writes: of them the fullest is named where the system names none.
    """
    for each in causes(error):
        if isinstance(each, DiskError):
            return each
        if number := _number(each):
            named = getattr(each, "filename2", None) or getattr(each, "filename", None)
            places = [named] if isinstance(named, str) else [*folders, tempfile.gettempdir()]
            return DiskError(_sentence(number, [Path(place) for place in places]))
    return None


def existing(place: Path) -> Path:
    """Return `place`, or the nearest folder above it that is there."""
    return next(each for each in (place, *place.absolute().parents) if each.exists())


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno in FULL:
        return error.errno
    text = str(error)
    return next((number for number, pattern in PATTERNS.items() if re.search(pattern, text)), None)


def _sentence(number: int, places: list[Path]) -> str:
    path = min(map(existing, places), key=lambda place: shutil.disk_usage(place).free)
    usage = shutil.disk_usage(path)
    wrong, cure = FULL[number]
    free, total = map(_size, (usage.free, usage.total))
    return f"the disk of {path} {wrong} ({free} of {total} free): {cure}"


def _size(size: int) -> str:
    if size >= GIB:
        return f"{size / GIB:,.1f} GiB"
    return f"{size / MIB:.{1 if 0 < size < 10 * MIB else 0}f} MiB"
