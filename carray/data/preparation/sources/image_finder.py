"""Which file a table means: by its path, its name or the end of a path from another machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from carray.data.preparation.sources.listing import class_name, nfc, split_of, walk_images
from carray.data.preparation.sources.table_file import names_image

NO_FILE, NOT_BELOW = "no such file", "no file below the image folder"
BEAR = "files have this name"


@dataclass(frozen=True)
class FoundImages:
    """The files that a table's cells mean, row by row."""

    paths: tuple[Path, ...]
    """Where there is a problem, where the file was looked for."""
    problems: tuple[str, ...]
    """Why there is no such file, "" where there is."""
    moved_from: str = ""
    """The folder of another machine that stands for this one, "" where there is none."""

    def several(self, names: Sequence[str]) -> list[str]:
        """Return those of the names that may be several files."""
        return [name for name, why in zip(names, self.problems, strict=True) if BEAR in why]

    def sentence(self, folder: Path) -> str:
        """Say which folder of another machine was taken for `folder`, "" for none."""
        return f"; {self.moved_from} stands for {folder}" if self.moved_from else ""

    @property
    def num_found(self) -> int:
        """How many names mean a file."""
        return self.problems.count("")

    def same_files(self, other: FoundImages) -> bool:
        """Say whether the rows of two columns mean the same files."""
        return (self.problems, self.paths) == (other.problems, other.paths)


class ImageFinder:
    """Finds what a table names below a folder: paths, ends of paths, names without their ending.

    An ending may be of any case, and so may the rest where no file has the very name; a slash may
    be of either kind, letters composed or not. With `anywhere`
    a path that is there as it stands may also lead out of the folder.
    """

    def __init__(self, folder: Path, *, anywhere: bool = False) -> None:
        self.folder = folder
        self.anywhere = anywhere

    @cached_property
    def _files(self) -> dict[Path, str]:
        """{an image below the folder: its path there, composed}."""
        found = walk_images(self.folder, all_of_it=False)[0]
        return {path: nfc(path.relative_to(self.folder).as_posix()) for path in found}

    @cached_property
    def _by_end(self) -> dict[str, list[Path]]:
        """{each end of a path below the folder, with and without ending: the files}."""
        by_end: dict[str, list[Path]] = defaultdict(list)
        for path, name in self._files.items():
            for end in _ends(name):
                by_end[end].append(path)
                by_end[end[: -len(path.suffix)]].append(path)
        return by_end

    @cached_property
    def _by_small_end(self) -> dict[str, list[Path]]:
        """The same with an image's ending in small letters."""
        by_end: dict[str, list[Path]] = defaultdict(list)
        for path, name in self._files.items():
            for end in _ends(name):
                by_end[_small(end)].append(path)
        return by_end

    @cached_property
    def _by_folded_end(self) -> dict[str, list[Path]]:
        """The same without regard to case: a table of Windows or macOS, which have none."""
        by_end: dict[str, list[Path]] = defaultdict(list)
        for end, paths in self._by_end.items():
            by_end[end.casefold()] += paths
        return by_end

    def example(self) -> str:
        """Return the path of a file that is there, "" for none."""
        return next(iter(self._files.values()), "")

    def find_all(self, names: Sequence[str], labels: Sequence[str] = ()) -> FoundImages:
        """Return the file of each name; where several bear it, the one in its label's own folder.

        Where paths are of another machine, the folders that they all begin with are taken away
        one by one, until most files are found: the longest end that is there.
        """
        keys = [self._below(_key(name)) for name in names]
        labels = labels or [""] * len(keys)
        best = self._found(keys, labels)
        shared = [] if _any_here(keys) else _shared_folders(keys)
        for count in range(1, len(shared) + 1):
            if best.num_found == len(keys):
                break
            folder = "/".join(shared[:count])
            ends = [key[len(folder) + 1 :] for key in keys]
            moved = self._found(ends, labels)
            if moved.num_found > best.num_found and self._may_stand_for(folder, ends, moved):
                best = replace(moved, moved_from=folder or "/")
        return best

    def _may_stand_for(self, folder: str, ends: Sequence[str], moved: FoundImages) -> bool:
        """Say whether `folder` may be another machine's name of this one.

        A path that isn't absolute must name this folder; and bare names that lie deeper, or in
        another split's folder, are other files.
        """
        if not _is_absolute(folder):
            return f"{self.folder.as_posix()}/".endswith(f"/{folder.removeprefix('../')}/")
        split = next(filter(None, map(split_of, reversed(folder.split("/")))), "")
        found = zip(ends, moved.paths, moved.problems, strict=True)
        places = [
            (end, self._files.get(path, "").split("/")[:-1]) for end, path, why in found if not why
        ]
        around = {split_of(name) for _, steps in places for name in (self.folder.name, *steps)}
        deeper = any(steps and "/" not in end for end, steps in places)
        return not deeper and (not split or around <= {"", split})

    def _found(self, keys: Sequence[str], labels: Sequence[str]) -> FoundImages:
        looked = [self._find(key, label) for key, label in zip(keys, labels, strict=True)]
        return FoundImages(tuple(path for path, _ in looked), tuple(why for _, why in looked))

    def _find(self, key: str, label: str) -> tuple[Path, str]:
        """Return (path, "") or (a path that isn't there, why)."""
        if self.anywhere and key and (self.folder / key).is_file():
            return self.folder / key, ""
        found = self._by_end.get(key) or self._by_small_end.get(_small(key), [])
        found = found or self._by_folded_end.get(key.casefold(), [])
        if len(found) > 1:  # the same name in several folders: the label's own folder decides
            found = [path for path in found if class_name(path.parent.name) == label] or found
        if len(found) > 1:
            found = [path for path in found if self._files[path] == key] or found
        if len(found) == 1:
            return found[0], ""
        if not found and names_image(key) and Path(key).is_absolute():
            return Path(key), NOT_BELOW
        return self.folder / key, f"{len(found)} {BEAR}" if found else NO_FILE

    def _below(self, key: str) -> str:
        """Return an absolute path as one below the folder, if it is there."""
        if not key.startswith("/"):
            return key
        for path in (Path(key), Path(key).parent.resolve() / Path(key).name):
            if path.is_relative_to(self.folder):
                return nfc(path.relative_to(self.folder).as_posix())
        return key


def _ends(name: str) -> list[str]:
    steps = name.split("/")
    return ["/".join(steps[start:]) for start in range(len(steps))]


def _key(name: str) -> str:
    return nfc(name.strip()).replace("\\", "/").removeprefix("./")


def _small(name: str) -> str:
    """Return a name with an image's ending in small letters."""
    stem, dot, ending = name.rpartition(".")
    return f"{stem}{dot}{ending.lower()}" if names_image(name) else name


def _is_absolute(folder: str) -> bool:
    """Say whether a path begins at the root of a machine, a drive or an address."""
    first = folder.split("/")[0]
    return first == "" or first.endswith(":") or first == "~"


def _any_here(keys: Sequence[str]) -> bool:
    """Say whether paths are this machine's own: then they aren't another's."""
    return any(key.startswith("/") and Path(key).exists() for key in keys)


def _shared_folders(keys: Sequence[str]) -> list[str]:
    """Return the folders that all paths begin with."""
    ways = [key.split("/")[:-1] for key in keys if key]
    shared = []
    for steps in zip(*ways, strict=False):
        if len(set(steps)) > 1:
            break
        shared.append(steps[0])
    return shared
