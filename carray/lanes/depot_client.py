"""The nodes' end of the depot: a folder of the driver's that is read and written as one at a URL.

`RayDepot` reaches the depot that is a Ray actor on the driver's node, from any process of the
cluster; it is pickled with what it is given to. Pieces go through Ray's object store.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import ray

from carray.errors import ClusterError
from carray.files import written_aside
from carray.lanes.depot import Depot, StudyPlaces, set_time, stamp_of, stamps_below
from carray.lanes.this_node import on_this_node
from carray.storage.remote import CHUNK_BYTES, FileStamp, RemoteFolder
from carray.typing import Advance

PIECES_AT_ONCE = 4  # on their way, of one file
CALLS_AT_ONCE = 16  # that the depot answers
RESTARTS = 5  # of a depot that dies


class DepotClient(Protocol):
    """`Depot`, called from other processes."""

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the depot; return what it returns, raise what it raises."""


class RayDepot:
    """The depot of a study, an actor; see `DepotClient` and `Depot`."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def begun(cls, places: StudyPlaces) -> RayDepot:
        """Start the actor, on this process's node."""
        options = {"num_cpus": 0, "max_concurrency": CALLS_AT_ONCE, "max_restarts": RESTARTS}
        actor = ray.remote(Depot).options(
            **options, max_task_retries=-1, scheduling_strategy=on_this_node()
        )
        return cls(actor.remote(places))

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the depot; return what it returns, raise what it raises."""
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise ClusterError(f"the driver can't be reached ({type(error).__name__})") from None


class DriverFolder(RemoteFolder):
    """A room of the depot, with the interface of a folder at a URL as far as nodes need it.

    Args:
        url: what messages call it.
    """

    def __init__(self, depot: DepotClient, room: str, url: str) -> None:
        super().__init__(url)
        self._depot, self._room = depot, room

    def files(self, below: str = "") -> dict[str, FileStamp]:
        """Return every file below a folder, by name; none where there is no such folder."""
        found = self._depot.ask("files", self._named(below))
        return {name.removeprefix(f"{self._room}/"): stamp for name, stamp in found.items()}

    def stamp(self, name: str) -> FileStamp | None:
        """Return what tells a file's version; None where there is no such file."""
        return self.files(name).get(name)

    def fetch(self, name: str, into: Path, advance: Advance = lambda count: None) -> None:
        """Copy a file to `into`, which gets its time too; raises FileNotFoundError without one."""
        stamp = self.stamp(name)
        if stamp is None:
            raise FileNotFoundError(f"{self} has no {name}")
        with written_aside(into) as aside:
            self._copy(name, stamp, aside, advance)

    def fetch_folder(self, name: str, into: Path) -> bool:
        """Copy a folder, and those in it, to `into`; say whether there were any files."""
        found = self.files(name)
        if not found:
            return False
        with written_aside(into) as aside:
            for each, stamp in found.items():
                file = aside / Path(each).relative_to(name)
                file.parent.mkdir(parents=True, exist_ok=True)
                self._copy(each, stamp, file)
        return True

    def put(self, file: Path, name: str, advance: Advance = lambda count: None) -> None:
        """Replace a file with a local one, and wait until the driver has acknowledged it."""
        self._put({Path(name).name: file}, name, advance)

    def put_folder(self, folder: Path, name: str) -> None:
        """Replace a folder with a local one, and wait until the driver has acknowledged it."""
        self._put({each: folder / each for each in stamps_below(folder)}, name)

    def remove(self, name: str) -> None:
        """Remove a file or a folder, there or not."""
        self._depot.ask("remove", self._named(name))

    def _put(
        self, files: Mapping[str, Path], name: str, advance: Advance = lambda count: None
    ) -> None:
        transfer = uuid.uuid4().hex
        stamps = {each: stamp_of(file) for each, file in files.items()}
        for each, file in files.items():
            self._write(transfer, each, file, advance)
        self._depot.ask("place", transfer, self._named(name), stamps)

    def _write(self, transfer: str, name: str, file: Path, advance: Advance) -> None:
        with file.open("rb") as opened, ThreadPoolExecutor(PIECES_AT_ONCE) as pool:

            def send(start: int) -> None:
                piece = os.pread(opened.fileno(), CHUNK_BYTES, start)
                self._depot.ask("write", transfer, name, start, piece)
                advance(len(piece))

            size = os.fstat(opened.fileno()).st_size
            list(pool.map(send, range(0, max(1, size), CHUNK_BYTES)))

    def _copy(
        self, name: str, stamp: FileStamp, into: Path, advance: Advance = lambda count: None
    ) -> None:
        with into.open("wb") as opened, ThreadPoolExecutor(PIECES_AT_ONCE) as pool:

            def take(start: int) -> None:
                piece = self._depot.ask("read", self._named(name), start, CHUNK_BYTES)
                os.pwrite(opened.fileno(), piece, start)
                advance(len(piece))

            list(pool.map(take, range(0, stamp.size, CHUNK_BYTES)))
        if into.stat().st_size != stamp.size or self.stamp(name) != stamp:
            raise ClusterError(f"{self}/{name} has changed while it was fetched")
        set_time(into, stamp)

    def _named(self, name: str) -> str:
        return f"{self._room}/{name}".rstrip("/")
