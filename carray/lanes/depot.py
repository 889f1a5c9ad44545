"""`Depot`: the driver's end of files that go to and from nodes which don't see its folders.

Plain Python, in pieces of some megabytes; `depot_client.py` has a Ray actor for it. All that it
knows is on disk, so one that was started again goes on.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from carray.config import Fit
from carray.data.manifest import Manifest
from carray.data.pixels.store import open_store
from carray.disk import disk_error
from carray.errors import ClusterError
from carray.files import recover_folders, remove, written_aside
from carray.storage.mirror import is_same
from carray.storage.remote import FileStamp

Stamps = Mapping[str, FileStamp]

ASIDE = ".sent-"
WEIGHTS, TEACHERS = "weights", "teachers"
NS = 10**9


@dataclass(frozen=True)
class StudyPlaces:
    """Where a study's files are for its driver, and what tells a node that shares them."""

    study: str
    """The study's folder."""
    nonce: str
    """Name of a file in it, while the driver is at work."""
    data: str
    """The prepared data set's folder."""
    stores: str
    """The folder of its pixel stores, where they aren't in it."""
    manifest_hash: str
    weights: Mapping[str, str] = field(default_factory=dict)
    """The file of pretrained weights of each backbone that has one in the driver's own folder."""
    teachers: Mapping[str, str] = field(default_factory=dict)
    """The hash of the card of each package that `distill.teacher` names."""


class Depot:
    """Gives and takes files by names: `study/trials/0007/best.safetensors`, `data/images.csv`."""

    def __init__(self, places: StudyPlaces) -> None:
        self._rooms = {"study": Path(places.study), "data": Path(places.data)}
        self._stores = Path(places.stores)
        self._weights = places.weights
        self._teachers = {card: Path(folder) for folder, card in places.teachers.items()}

    def files(self, below: str) -> dict[str, FileStamp]:
        """Return every file below a folder, by name; a file alone, if it is one."""
        folder = self._path(below)
        if folder.is_file():
            return {below: stamp_of(folder)}
        if below.startswith("data/store/") and not folder.exists():
            self._build_store(folder.name)
            folder = self._path(below)
        recover_folders(folder)
        return {f"{below}/{name}": stamp for name, stamp in stamps_below(folder).items()}

    def read(self, name: str, start: int, count: int) -> bytes:
        """Return a piece of a file; raises FileNotFoundError where it is gone."""
        with self._path(name).open("rb") as file:
            return os.pread(file.fileno(), count, start)

    def write(self, transfer: str, name: str, start: int, piece: bytes) -> None:
        """Take a piece of a file, which stays aside until `place`.

        Raises:
            DiskError: the driver's disk has no room for it.
        """
        aside = self._aside(transfer)
        try:
            aside.mkdir(exist_ok=True)
            descriptor = os.open(aside / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                os.pwrite(descriptor, piece, start)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise disk_error(error, aside.parent) or error from None

    def place(self, transfer: str, target: str, stamps: Stamps) -> None:
        """Put what was taken aside in its place, at once, and so acknowledge it.

        Args:
            target: a file of that name, or a folder that is to hold the files.
            stamps: of every file, as its sender has it.

        Raises:
            ClusterError: it isn't whole.
        """
        aside, into = self._aside(transfer), self._path(target)
        is_file = list(stamps) == [into.name]
        is_taken = any((aside / name).exists() for name in stamps)
        if not is_taken and is_copy(into, {"": stamps[into.name]} if is_file else stamps):
            return  # placed by one that died before it could answer, and asked for again
        for name, stamp in stamps.items():
            file = aside / name
            if not file.exists() or file.stat().st_size != stamp.size:
                raise ClusterError(f"{target} came in pieces that aren't whole")
            set_time(file, stamp)
        with written_aside(into) as path:
            (aside / into.name if is_file else aside).replace(path)
        shutil.rmtree(aside, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Remove a file or a folder, there or not."""
        remove(self._path(name))

    def _build_store(self, name: str) -> None:
        """Build pixels of a size that nobody knew of before it was drawn."""
        side, _, fit = name.partition("-")
        image_size = int(side) * 7 // 8  # the largest that `store_side` gives this side
        open_store(Manifest.load(self._rooms["data"]), image_size, cast("Fit", fit))

    def _path(self, name: str) -> Path:
        room, _, rest = name.partition("/")
        if room == WEIGHTS:
            return Path(self._weights[rest])
        if room == TEACHERS:
            card, _, file = rest.partition("/")
            return self._teachers[card] / file
        path = self._rooms[room] / rest
        if room == "data" and rest.startswith("store/") and not path.exists():
            return self._stores / rest.removeprefix("store/")
        return path

    def _aside(self, transfer: str) -> Path:
        return self._rooms["study"] / f"{ASIDE}{transfer}"


def remove_left(study: Path) -> None:
    """Remove what senders that were killed have left aside."""
    for left in study.glob(f"{ASIDE}*"):
        shutil.rmtree(left, ignore_errors=True)


def stamps_below(folder: Path) -> dict[str, FileStamp]:
    """Return the stamps of a folder's files, by their names in it; hidden ones are left out."""
    stamps = {}
    for file in folder.rglob("*"):
        name = file.relative_to(folder)
        with suppress(FileNotFoundError):  # gone meanwhile
            if file.is_file() and not any(part.startswith(".") for part in name.parts):
                stamps[name.as_posix()] = stamp_of(file)
    return stamps


def stamp_of(file: Path) -> FileStamp:
    """Return what tells a file's version."""
    found = file.stat()
    return FileStamp(found.st_size, found.st_mtime)


def is_copy(path: Path, theirs: Stamps) -> bool:
    """Say whether a file, of the name "" in `theirs`, or a folder is the one of these stamps."""
    ours = stamps_below(path) if path.is_dir() else ({""} if path.exists() else set())
    return set(ours) == theirs.keys() and all(
        is_same(path / each if each else path, stamp) for each, stamp in theirs.items()
    )


def set_time(file: Path, stamp: FileStamp) -> None:
    """Give a copy its original's time, by which the two are known to be the same."""
    os.utime(file, ns=(round(stamp.changed_at * NS),) * 2)
