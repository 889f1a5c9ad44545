"""CSV tables: an id and a label per row, perhaps a split and a box."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from carray.data.pixels.decode import IMAGE_SUFFIXES, Box
from carray.data.preparation.sources.listing import (
    SPLIT_NAMES,
    Listing,
    SourceImage,
    class_name,
    nfc,
    ordered_unique,
    walk_images,
)
from carray.errors import DataError, did_you_mean

ID_NAMES = ("id", "image_id", "image", "filename", "file_name", "file", "path", "img", "img_name")
LABEL_NAMES = ("category", "label", "class", "class_name", "target", "model", "name")
SPLIT_COLUMNS = ("split", "subset")
BOX_NAMES = (
    ("box_x1", "box_y1", "box_x2", "box_y2"),
    ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
)


@dataclass(frozen=True)
class _Columns:
    image: str
    label: str
    split: str | None
    box: tuple[str, ...] | None


def list_table(
    source: Path, images: Path | None, id_column: str | None, label_column: str | None
) -> Listing:
    """List the rows of a CSV; ids may be paths below `images`, file names, or names without
    their ending. `images` is the table's own folder unless given.

    Raises:
        DataError: the table can't be read, a column or the images are missing.
    """
    table = read_csv(source)
    columns = _columns(table, source, id_column, label_column)
    folder = (images or source.parent).resolve()
    if not folder.is_dir():
        raise DataError(f"the image folder {folder} doesn't exist: give it with --images")
    finder = _Finder(folder)
    names = [str(name) for name in table.columns]
    rows = (dict(zip(names, row, strict=True)) for row in table.itertuples(index=False))
    source_images = [_source_image(row, columns, finder) for row in rows]
    if not any(one.problem == "" for one in source_images):
        first = source_images[0].image_id if source_images else "none"
        raise DataError(
            f"no image of {source} is in {folder} (the first id is {first!r}): "
            "give the folder with --images and the column with --id-column"
        )
    return Listing("csv", folder, ordered_unique(source_images))


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table of text; comma, semicolon or tab; nothing is taken for a number or missing.

    Raises:
        DataError: it isn't UTF-8, or no table.
    """
    try:
        head = path.read_text(encoding="utf-8-sig").partition("\n")[0]
        separator = max(",;\t", key=head.count)
        table = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
        return _without_empty_cells(table.fillna(""), path)  # rows may be shorter, too
    except UnicodeDecodeError:
        raise DataError(f"{path} isn't UTF-8: save it as UTF-8") from None
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise DataError(f"{path} can't be read as a table: {why}") from None


def _without_empty_cells(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return a table whose rows may all be longer than its header, as pandas reads it: their
    first cells as an index. What is too much must be empty."""
    if isinstance(table.index, pd.RangeIndex):
        return table
    names, cells = list(table.columns), table.reset_index()
    if (cells.iloc[:, len(names) :] != "").to_numpy().any():
        raise DataError(
            f"the rows of {path} have {cells.shape[1]} cells, its header {len(names)}: name every "
            "column, and quote cells that hold a separator"
        )
    return cells.iloc[:, : len(names)].set_axis(names, axis=1)


def _columns(
    table: pd.DataFrame, source: Path, id_column: str | None, label_column: str | None
) -> _Columns:
    names = columns_of(table)
    label = _pick(names, label_column, LABEL_NAMES, "label", source)
    others = {low: name for low, name in names.items() if name != label}
    image = _pick(others, id_column, ID_NAMES, "id", source)
    split = next((names[name] for name in SPLIT_COLUMNS if name in names), None)
    box = next((tuple(names[n] for n in four) for four in BOX_NAMES if set(four) <= set(names)), ())
    split = None if split in (image, label) else split
    return _Columns(image, label, split, box or None)


def columns_of(table: pd.DataFrame) -> dict[str, str]:
    """Return {name in small letters: the column's name}."""
    return {str(name).strip().lower(): str(name) for name in table.columns}


def _pick(
    names: Mapping[str, str], asked: str | None, usual: Sequence[str], what: str, source: Path
) -> str:
    """Return the asked column, or the first of the usual names that is there."""
    if asked is None:
        return usual_column(names, usual, what, source, f"say which with --{what}-column")
    if asked in names.values():
        return asked
    hint = did_you_mean(asked, names.values())
    raise DataError(f"{source} has no column {asked!r}{hint or _listed(names)}")


def usual_column(
    names: Mapping[str, str], usual: Sequence[str], what: str, source: Path, cure: str
) -> str:
    """Return the first of the usual names that is there.

    Raises:
        DataError: none is.
    """
    found = next((names[name] for name in usual if name in names), None)
    if found is None:
        raise DataError(
            f"no column of {source} is known to hold the {what}{_listed(names)}; {cure}"
        )
    return found


def _listed(names: Mapping[str, str]) -> str:
    return f"; its columns are {', '.join(names.values())}"


def _source_image(row: Mapping[str, str], columns: _Columns, finder: _Finder) -> SourceImage:
    name, label = nfc(row[columns.image].strip()), class_name(row[columns.label].strip())
    path, problem = finder.find(name, label)
    if not label:
        problem = "no label"
    asked = row[columns.split].strip().lower() if columns.split else ""
    split = SPLIT_NAMES.get(asked, "")
    if asked and not split:
        problem = f"the split {asked!r} is unknown"
    box = _box([row[name] for name in columns.box]) if columns.box else None
    image_id = nfc(path.relative_to(finder.folder).as_posix()) if not problem else name
    return SourceImage(image_id, path, label, split, box, problem)


def _box(values: Sequence[str]) -> Box | None:
    """Return a box from four texts; None where they are empty or no box."""
    try:
        x1, y1, x2, y2 = (round(float(value)) for value in values)
    except (ValueError, OverflowError):
        return None
    return (max(0, x1), max(0, y1), x2, y2) if x2 > max(0, x1) and y2 > max(0, y1) else None


class _Finder:
    """Finds an id's file: by its path below the folder, its name, or its name without ending."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in walk_images(folder, all_of_it=False)[0]:
            name = nfc(path.relative_to(folder).as_posix())
            stem = name[: -len(path.suffix)]
            for key in {name, stem, name.rpartition("/")[2], stem.rpartition("/")[2]}:
                self._by_name[key].append(path)

    def find(self, name: str, label: str) -> tuple[Path, str]:
        """Return (path, "") or (a path that isn't there, why)."""
        key = self._below(name.replace("\\", "/").removeprefix("./"))
        found = self._by_name.get(key, [])
        if len(found) > 1:  # the same name in several folders: the label's own folder decides
            found = [path for path in found if class_name(path.parent.name) == label] or found
        if len(found) == 1:
            return found[0], ""
        if not found and Path(key).suffix.lower() in IMAGE_SUFFIXES and Path(key).is_absolute():
            return Path(key), "no file below the image folder"
        why = f"{len(found)} files have this name" if found else "no such file"
        return self.folder / key, why

    def _below(self, name: str) -> str:
        """Return an absolute path as one below the folder, if it is there."""
        for path in (Path(name), Path(name).parent.resolve() / Path(name).name):
            if path.is_absolute() and path.is_relative_to(self.folder):
                return nfc(path.relative_to(self.folder).as_posix())
        return name
