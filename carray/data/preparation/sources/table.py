"""Tables: the name of an image and a label per row, perhaps a split and a box."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from carray.data.pixels.decode import Box
from carray.data.preparation.sources.columns import (
    box_columns,
    boxes_of,
    image_column,
    label_columns,
    labels_of,
    odd_boxes,
    reading_sentence,
)
from carray.data.preparation.sources.image_finder import FoundImages, ImageFinder
from carray.data.preparation.sources.listing import (
    Listing,
    SourceImage,
    class_name,
    nfc,
    ordered_unique,
    split_of,
)
from carray.data.preparation.sources.split_words import (
    SplitColumn,
    read_split_words,
    split_column,
    splits_of,
)
from carray.data.preparation.sources.table_file import Table, read_table
from carray.errors import Complaints, DataError, counted, some_of

MAX_NAMED = 8


@dataclass(frozen=True)
class TableOptions:
    """What a person says of a table."""

    images: Path | None = None
    """The image folder; if None, that of absolute paths which are there, else the table's own."""
    id_column: str | None = None
    label_column: str | None = None
    """One, or several with commas between them: `make,model`."""
    split_words: str | None = None
    """`0=train,1=val`."""


@dataclass(frozen=True)
class _Reading:
    """What was taken for what."""

    image: str
    labels: tuple[str, ...]
    split: SplitColumn
    box: tuple[str, ...]
    found: FoundImages


def list_table(source: Path, options: TableOptions) -> Listing:
    """List the rows of a table; images are named by paths below their folder, by file names, by
    names without ending, or by paths of another machine.

    Raises:
        DataError: the table can't be read, columns or the images are missing, or can be read in
            two ways; all that is wrong is said at once.
    """
    table = read_table(source)
    if not len(table.rows):
        raise DataError(f"{source} has a header ({', '.join(table.columns)}) and no row below it")
    if not table.has_header:
        first = next(iter(table.rows))
        raise DataError(
            f"the first line of {source} names an image ({', '.join(first)}), no columns: put a "
            "header above it, such as image,label"
        )
    folder = (options.images or _folder_of_paths(table) or source.parent).resolve()
    reading = _read_columns(table, folder, options)
    _require_images(table, folder, reading)
    parts = {
        "image": [reading.image],
        "label": reading.labels,
        "split": [reading.split.sentence()] if reading.split.name else [],
        "box": reading.box,
    }
    how = reading_sentence(table, parts) + reading.found.sentence(folder)
    used = {reading.image, *reading.labels, reading.split.name, *reading.box}
    left = [column for column in table.columns if column and column not in used]
    how += f"; not read: {some_of(left, MAX_NAMED)}" if left else ""
    images = _source_images(table, folder, reading)
    odd = _odd_boxes(table, reading)
    notes = (*_split_folders(table, reading), *odd, *_unlabelled(images))
    return Listing("csv", folder, ordered_unique(images), (), notes, how, "".join(odd))


def _folder_of_paths(table: Table) -> Path | None:
    """Return the folder around absolute paths of files that are there, but not below the table."""
    for column in table.columns:
        cells = table.cells(column)
        if cells and all(map(os.path.isabs, cells)) and any(map(os.path.isfile, cells)):
            folder = Path(os.path.commonpath(list(map(os.path.dirname, cells)))).resolve()
            return None if folder.is_relative_to(table.file.parent.resolve()) else folder
    return None


def _read_columns(table: Table, folder: Path, options: TableOptions) -> _Reading:
    """Return what each column holds; whatever is unclear is said at once."""
    complaints = Complaints()
    finder = ImageFinder(folder)
    with complaints.heard():
        labels = label_columns(table, options.label_column)
    with complaints.heard():
        if not folder.is_dir():
            raise DataError(f"the image folder {folder} doesn't exist: give it with --images")
    with complaints.heard():
        own = [class_name(label) for label in labels_of(table, labels)] if not complaints else []
        known = (labels, own) if not complaints else ((), ())
        image, found = image_column(table, finder, options.id_column, known)
    box = box_columns(table)
    with complaints.heard():
        taken = [*box, *([image, *labels] if not complaints else [])]
        split = split_column(table, taken, read_split_words(options.split_words))
    complaints.refuse()
    return _Reading(image, labels, split, box, found)


def _require_images(table: Table, folder: Path, reading: _Reading) -> None:
    """Check that one row at least means an image."""
    if reading.found.num_found:
        return
    names = table.cells(reading.image)
    if several := reading.found.several(names):
        raise DataError(
            f"{counted(len(several), 'name')} in {table.file} may be several images in {folder}, "
            f"the first is {several[0]!r}: write their paths from there on"
        )
    there = ImageFinder(folder).example()
    hint = f", a file there is {there!r}" if there else ""
    raise DataError(
        f"no image of {table.file} is in {folder} (the first id is "
        f"{names[0] if names else 'none'!r}{hint}): move the table into its images' folder or "
        "write whole paths; `carray data prepare` also takes --images FOLDER and --id-column"
    )


def _split_folders(table: Table, reading: _Reading) -> tuple[str, ...]:
    """Say that images lie in folders of splits where no column tells the splits."""
    ways = (name.replace("\\", "/").split("/")[:-1] for name in table.cells(reading.image))
    folders = {step for steps in ways for step in steps if split_of(step)}
    if reading.split.name or len(set(map(split_of, folders))) < 2:
        return ()
    return (
        f"images lie in {' and '.join(sorted(folders))}, but no column of {table.file.name} tells "
        "splits, so they are cut anew: add a column split to keep them",
    )


def _odd_boxes(table: Table, reading: _Reading) -> tuple[str, ...]:
    """Say which rows have a box that is none."""
    odd = odd_boxes(table, reading.box)
    if not odd:
        return ()
    first = ", ".join(table.cells(column)[odd[0]] or "nothing" for column in reading.box)
    return (
        f"{counted(len(odd), 'box is', 'boxes are')} none and passed by, as "
        f"{table.cells(reading.image)[odd[0]]}'s ({first}): pixels are needed, the right "
        "edge past the left, the lower past the upper",
    )


def _unlabelled(images: Sequence[SourceImage]) -> tuple[str, ...]:
    """Say which splits of a table have no label at all."""
    labelled = {one.split for one in images if one.label}
    bare = Counter(one.split for one in images if one.split and one.split not in labelled)
    return tuple(
        f"{split} has no label on its {counted(count, 'row')}: it is cut from the others"
        for split, count in bare.items()
    )


def _source_images(table: Table, folder: Path, reading: _Reading) -> list[SourceImage]:
    rows = zip(
        table.cells(reading.image),
        map(class_name, labels_of(table, reading.labels)),
        reading.found.paths,
        reading.found.problems,
        splits_of(table, reading.split),
        boxes_of(table, reading.box),
        strict=True,
    )
    return [_source_image(folder, *row) for row in rows]


def _source_image(
    folder: Path,
    name: str,
    label: str,
    path: Path,
    problem: str,
    split: tuple[str, str],
    box: Box | None,
) -> SourceImage:
    problem = split[1] or ("" if label else "no label") or problem
    image_id = nfc(name if problem else path.relative_to(folder).as_posix())
    return SourceImage(image_id, path, label, split[0], box, problem)
