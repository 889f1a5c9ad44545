"""`Mirror`: a local folder beside one at a URL; what is needed is fetched, what was made is put.

Work happens in the local folder, which has cheap renames, locks and sqlite. The URL gets what is
finished, and is enough to go on with on another machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from carray.storage.cache import folder_of
from carray.storage.remote import FileStamp, RemoteFolder

FRESH_SECONDS = 15.0  # for so long what the URL was seen to hold is taken for what it holds
FILES_AT_ONCE = 16  # small files are a matter of waiting, not of bytes
SAME_SECONDS = 1e-3  # what file times may lose on their way

_mirrors: dict[Path, Mirror] = {}


class Mirror:
    """A local folder and its URL; see `mirrored`."""

    def __init__(self, folder: Path, remote: RemoteFolder) -> None:
        self.folder = folder
        self.remote = remote
        self._seen: dict[str, tuple[float, dict[str, FileStamp]]] = {}

    def listing(self, below: str) -> dict[str, FileStamp]:
        """Return the files that the URL has below a folder, seen not long ago."""
        fresh = time.monotonic() - FRESH_SECONDS
        for folder, (at, files) in list(self._seen.items()):
            if at > fresh and f"{below}/".startswith(f"{folder}/"):
                return {name: files[name] for name in files if name.startswith(f"{below}/")}
        files = self.remote.files(below)
        self._seen[below] = time.monotonic(), files
        return files

    def forget(self) -> None:
        """Look again at the next question."""
        self._seen.clear()

    def pull(self, below: str, wanted: Callable[[str], bool]) -> int:
        """Fetch what differs of the wanted files below a folder; return how many did."""
        return self._pull({n: s for n, s in self.listing(below).items() if wanted(n)})

    def pull_files(self, names: Iterable[str]) -> int:
        """Fetch those of some files that are there and differ; return how many did."""
        stamps = {name: self.remote.stamp(name) for name in names}
        return self._pull({name: stamp for name, stamp in stamps.items() if stamp})

    def _pull(self, stamps: Mapping[str, FileStamp]) -> int:
        changed = [n for n, stamp in stamps.items() if not is_same(self.folder / n, stamp)]
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            return sum(pool.map(self._fetched, changed))

    def _fetched(self, name: str) -> bool:
        try:
            self.remote.fetch(name, self.folder / name)
        except FileNotFoundError:  # gone since it was listed
            return False
        return True

    def has(self, file: Path) -> bool:
        """Say whether the URL was last seen to have the local path `file`."""
        name = self.name_of(file)
        return any(name in files for _, files in list(self._seen.values()))

    def fetch(self, file: Path) -> bool:
        """Fetch what belongs at the local path `file`; say whether the URL has it."""
        return self._fetched(self.name_of(file))

    def push(self, paths: Iterable[Path]) -> None:
        """Put files, and all files of folders, at the URL; what is hidden stays here.

        Raises:
            StorageError: the URL can't be reached or refuses.
        """
        files = [
            file
            for path in paths
            for file in (sorted(path.rglob("*")) if path.is_dir() else [path])
            if file.is_file() and not file.name.startswith(".")
        ]
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            list(pool.map(lambda file: self.remote.put(file, self.name_of(file)), files))
        self.forget()

    def name_of(self, file: Path) -> str:
        """Return what the URL calls the local path `file`."""
        return file.relative_to(self.folder).as_posix()


def mirrored(url: str, room: str) -> Mirror:
    """Return the mirror of a URL in a room of this machine's cache: one a process."""
    folder = folder_of(url, room)
    return mirrored_in(folder, lambda: RemoteFolder(url))


def mirrored_in(folder: Path, remote: Callable[[], RemoteFolder]) -> Mirror:
    """Return the mirror in a local folder: one a process, of what `remote` makes first."""
    if folder not in _mirrors:
        _mirrors[folder] = Mirror(folder, remote())
    return _mirrors[folder]


def mirror_of(path: Path) -> Mirror | None:
    """Return the mirror that a local path lies in; None where it is an ordinary one."""
    return next((_mirrors[each] for each in (path, *path.parents) if each in _mirrors), None)


def is_same(file: Path, stamp: FileStamp) -> bool:
    """Say whether a local file is the version that `stamp` tells."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return False
    is_as_old = abs(found.st_mtime - stamp.changed_at) < SAME_SECONDS
    return found.st_size == stamp.size and is_as_old
