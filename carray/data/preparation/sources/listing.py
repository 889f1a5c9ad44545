"""`Listing`: what a source says of its images, before any of them is opened."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from carray.data.pixels.decode import IMAGE_SUFFIXES, Box
from carray.errors import CarrayError, DataError, unreadable_in_locale

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "blend": "blend",
    "test": "test",
    "testing": "test",
}
# Words that stand beside a split's in the name of its folder, as in `cars_train`, `Test Images`.
SPLIT_FILLERS = {
    *("set", "sets", "split", "data", "dataset", "image", "images", "img", "imgs", "photo"),
    *("photos", "picture", "pictures", "pics", "files", "folder", "car", "cars"),
}
SYSTEM_FOLDERS = {  # in small letters
    *("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information"),
    *("#recycle", "@recycle", "@tmp", "__pycache__"),
    *("thumbs", "thumbnails", "_thumbs", "_thumbnails"),
}


def split_of(name: str, *, plain: bool = False) -> str:
    """Return the split that a folder or a cell names, "" for none; `plain` is the word alone."""
    low = name.strip().lower()
    if plain or low in SPLIT_NAMES:
        return SPLIT_NAMES.get(low, "")
    words = [w for w in re.split(r"[^a-z0-9]+|(?<=[a-z])(?=set$)", low) if w]
    splits = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
    rest = [word for word in words if word not in SPLIT_NAMES]
    return splits[0] if len(splits) == 1 and SPLIT_FILLERS.issuperset(rest) else ""


def is_passed_by(name: str) -> bool:
    """Say whether a folder is hidden or one that systems leave."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def system_folders(source: Path) -> list[str]:
    """Return the names of system folders in `source` and in its folders."""
    near = [path for path in source.iterdir() if path.is_dir()]
    inner = (path for folder in near if not is_passed_by(folder.name) for path in _children(folder))
    names = {path.name for path in (*near, *inner) if path.name.lower() in SYSTEM_FOLDERS}
    return sorted(names)


def _children(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []  # the walk says why


@dataclass(frozen=True)
class SourceImage:
    """One image as a source lists it."""

    image_id: str
    path: Path
    label: str
    split: str = ""
    """The split that the source puts it in, "" where it doesn't say."""
    box: Box | None = None
    problem: str = ""
    """Why it can't be used, where that is known already."""


@dataclass(frozen=True)
class Listing:
    """All images of a source, ids unique, in the ids' order."""

    kind: str
    images_folder: Path
    source_images: tuple[SourceImage, ...]
    class_order: tuple[str, ...] = ()
    """The source's own order of its classes, if it has one."""
    notes: tuple[str, ...] = ()
    reading: str = ""
    """Which columns of a table were taken for what."""
    odd_boxes: str = ""
    """How many of its boxes are none, and why; also among the notes."""
    faults: tuple[CarrayError, ...] = ()
    """What is to be mended, although the other images could be listed: empty class folders."""


def nfc(text: str) -> str:
    """Return composed Unicode: some systems store file names decomposed, and one name is one
    class on all of them."""
    return unicodedata.normalize("NFC", text)


def class_name(text: str) -> str:
    """Return a label on one line: a line break in a table's cell, and what no terminal shows,
    become blanks."""
    blanks = (" " if unicodedata.category(letter) == "Cc" else letter for letter in text)
    return nfc("".join(blanks))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Order names as people do: class 2 before class 10."""
    steps = re.split(r"(\d+)", name)
    return [(0, int(step), "") if step.isdecimal() else (1, 0, step) for step in steps if step]


def walk_images(folder: Path, *, all_of_it: bool = True) -> tuple[list[Path], Counter[str]]:
    """Return the image files below `folder` in order, hidden ones left out, and the endings of
    files of other kinds, which were passed by.

    A link to a folder is followed, unless it leads back to where the walk came from.

    Raises:
        DataError: an image's name isn't UTF-8, or with `all_of_it` a folder can't be read.
    """
    images: list[Path] = []
    others: Counter[str] = Counter()
    ways: dict[Path, tuple[Path, ...]] = {folder: (folder.resolve(),)}  # real folders to each
    on_error = _refuse if all_of_it else None
    for parent, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        way = ways.pop(Path(parent))
        visible = (Path(parent) / name for name in sorted(folders) if not is_passed_by(name))
        real = {path: path.resolve() for path in visible}
        forward = {path: (*way, to) for path, to in real.items() if not _is_link_cycle(to, way)}
        folders[:] = [path.name for path in forward]
        ways |= forward
        for name in sorted(files):
            if name.startswith("."):
                continue
            path = Path(parent) / name
            if path.suffix.lower() in IMAGE_SUFFIXES:
                images.append(_require_utf8(path))
            else:
                others[path.suffix] += 1
    return images, others


def _refuse(error: OSError) -> NoReturn:
    why = f"{error.filename} can't be read ({error.strerror})"
    raise DataError(f"the folder {why}: make it readable, or take it away") from None


def _is_link_cycle(folder: Path, way: Sequence[Path]) -> bool:
    return any(one.is_relative_to(folder) for one in way)


def _require_utf8(path: Path) -> Path:
    """Return `path`; refuse a name that no table can hold."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError(_unwritable_name(path)) from None
    return path


def _unwritable_name(path: Path) -> str:
    """Say whether a name or the shell's locale is to blame, and the cure."""
    name = os.fsencode(path)
    try:
        shown = name.decode()
    except UnicodeDecodeError:
        return f"the name of the file {name!r} isn't UTF-8: rename it"
    return unreadable_in_locale(shown)


def visible_folders(folder: Path) -> list[Path]:
    """Return the folders in `folder`, hidden and system ones left out, in order of name."""
    found = (path for path in folder.iterdir() if path.is_dir())
    return sorted(path for path in found if not is_passed_by(path.name))


def ordered_unique(source_images: Iterable[SourceImage]) -> tuple[SourceImage, ...]:
    """Sort by id; an id that was used before gets `#2`, `#3`."""
    used: dict[str, int] = {}
    unique = []
    for one in sorted(source_images, key=lambda one: (one.image_id, one.label, one.box or ())):
        count = used[one.image_id] = used.get(one.image_id, 0) + 1
        if count > 1:
            fields = {**one.__dict__, "image_id": f"{one.image_id}#{count}"}
            one = SourceImage(**fields)
        unique.append(one)
    return tuple(sorted(unique, key=lambda one: one.image_id))
