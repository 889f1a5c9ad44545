"""The two files a person may bring: images to leave out, and classes that are one and the same."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping
from pathlib import Path

import yaml

from carray.data.preparation.sources.columns import (
    ID_NAMES,
    id_columns,
    is_of_files,
    unknown_column,
)
from carray.data.preparation.sources.listing import SourceImage, nfc
from carray.data.preparation.sources.table_file import read_table
from carray.errors import Complaints, DataError, did_you_mean


def read_names(path: Path) -> tuple[str, ...]:
    """Read image names: a .csv file's column of ids, else one per line; empty ones don't count.

    Raises:
        DataError: the file can't be read as UTF-8, or is a table without ids.
    """
    if path.suffix.lower() == ".csv":
        return _ids(path)
    lines = (nfc(line.strip()) for line in _text(path, "--exclude").splitlines())
    return tuple(line for line in lines if line)


def _ids(path: Path) -> tuple[str, ...]:
    table = read_table(path)
    usual = id_columns(table)
    if not usual:
        cure = (
            f"call one {ID_NAMES[0]!r}, or list the names of --exclude one per line in a .txt file"
        )
        raise unknown_column(table, "id", cure)
    files = [name for name in usual if is_of_files(table, name)]
    return tuple(nfc(name) for name in table.cells((files or usual)[0]) if name)


def match_names(
    names: Collection[str], source_images: Collection[SourceImage]
) -> tuple[set[str], list[str]]:
    """Return (ids of the named images, names that match none).

    A name is an id, the end of one after a slash, or that without its ending.
    """
    known: dict[str, set[str]] = {}
    for one in source_images:
        for key in _keys(one.image_id):
            known.setdefault(key, set()).add(one.image_id)
    matched = {image_id for name in names for image_id in known.get(name, ())}
    return matched, [name for name in names if name not in known]


def read_merge(path: Path, classes: Collection[str]) -> dict[str, str]:
    """Read {class: the class it becomes}: YAML `name: [a, b]`, or CSV lines `name,a,b`.

    Raises:
        DataError: a class is unknown or in two groups, or the file can't be read.
    """
    groups = _yaml_groups(path) if path.suffix in (".yaml", ".yml") else _csv_groups(path)
    merge: dict[str, str] = {}
    complaints = Complaints()
    for name, members in groups:
        for member in members:
            with complaints.heard():
                if member not in classes:
                    hint = did_you_mean(member, classes)
                    raise DataError(f"{path} merges {member!r}, which is no class{hint}")
                if merge.setdefault(member, name) != name:
                    raise DataError(f"{path} merges {member!r} into {merge[member]!r} and {name!r}")
        with complaints.heard():
            if name in classes and merge.setdefault(name, name) != name:
                raise DataError(f"{path} merges {name!r} into {merge[name]!r}, and others into it")
    complaints.refuse()
    return merge


def _keys(image_id: str) -> set[str]:
    name = image_id.rpartition("/")[2]
    return {image_id, name, image_id.rpartition(".")[0], name.rpartition(".")[0]} - {""}


def _text(path: Path, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path} of {option} can't be read: {why}") from None


def _csv_groups(path: Path) -> list[tuple[str, list[str]]]:
    rows = csv.reader(_text(path, "--merge").splitlines())
    cells = [[nfc(cell.strip()) for cell in row if cell.strip()] for row in rows]
    return [(row[0], row[1:]) for row in cells if row]


def _yaml_groups(path: Path) -> list[tuple[str, list[str]]]:
    try:
        found = yaml.load(_text(path, "--merge"), Loader=yaml.BaseLoader)  # all values stay text
    except yaml.YAMLError as error:
        raise DataError(f"{path} of --merge is no YAML: {' '.join(str(error).split())}") from None
    listed = isinstance(found, Mapping) and all(isinstance(v, list) for v in found.values())
    if not listed:
        raise DataError(f"{path} of --merge must map a class to a list: `name: [a, b]`")
    return [(nfc(str(name)), [nfc(str(m)) for m in found[name]]) for name in found]
