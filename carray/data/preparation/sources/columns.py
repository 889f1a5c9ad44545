"""Which columns of a table hold what: told by their names, decided by their cells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from carray.data.pixels.decode import Box
from carray.data.preparation.sources.image_finder import FoundImages, ImageFinder
from carray.data.preparation.sources.table_file import SEPARATORS, Table, names_image
from carray.errors import DataError, counted, did_you_mean

ID_NAMES = (
    *("id", "image_id", "image", "filename", "file_name", "file", "path", "img", "img_name"),
    *("image_name", "image_path", "img_path", "file_path", "filepath", "relative_im_path"),
)
LABEL_NAMES = ("category", "label", "class", "class_name", "target", "model", "name")
MAKE_NAMES = ("make", "brand", "manufacturer", "maker")
MODEL_NAMES = ("model", "car_model", "model_name")
YEAR_NAMES = ("year", "model_year")
EDGES = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
BOX_NAMES = [
    tuple(f"{before}{edge}" for edge in edges)
    for edges, before in product(EDGES, ("box_", "bbox_", ""))
]


def image_column(
    table: Table,
    finder: ImageFinder,
    asked: str | None = None,
    labels: tuple[Sequence[str], Sequence[str]] = ((), ()),
    cure: str = "say which with --id-column",
) -> tuple[str, FoundImages]:
    """Return the column of image names and the files that it means.

    It is the one whose cells are file names; where there is none, one of the usual names, and of
    these the one that means the most files.

    Args:
        table: the table.
        finder: knows the images that there are.
        asked: the column that a person named.
        labels: the columns of labels, which aren't looked at, and the label of each row.
        cure: what a person is told to do where it can't be told.

    Raises:
        DataError: no column is known to hold them, or two that mean other files.
    """
    if asked is not None:
        name = named_column(table, asked)
        return name, finder.find_all(table.cells(name), labels[1])
    free = [name for name in table.columns if name not in labels[0]]
    usual = [name for name in id_columns(table) if name in free]
    files = [name for name in free if is_of_files(table, name)]
    candidates = list(dict.fromkeys([*(name for name in usual if name in files), *files, *usual]))
    if not candidates:
        raise unknown_column(table, "id", cure)
    found = {name: finder.find_all(table.cells(name), labels[1]) for name in candidates}
    sure = [name for name in files if found[name].num_found * 2 > len(table.rows)]
    most = max(found[name].num_found for name in sure or candidates)
    best = [name for name in sure or candidates if found[name].num_found == most]
    others = [name for name in best if not found[name].same_files(found[best[0]])]
    preferred = [name for name in best if name in usual]
    if most and others and len(preferred) != 1:
        raise DataError(
            f"the columns {best[0]} and {others[0]} of {table.file} name different images: {cure}"
        )
    name = preferred[0] if len(preferred) == 1 else best[0]
    return name, found[name]


def id_columns(table: Table) -> list[str]:
    """Return the columns that bear a usual name of ids or files, in the names' order."""
    return table.known_as(ID_NAMES)


def is_of_files(table: Table, column: str) -> bool:
    """Say whether most cells of a column end as names of image files do."""
    cells = [cell for cell in table.cells(column) if cell]
    return 2 * sum(map(names_image, cells)) > len(cells)


def label_columns(table: Table, asked: str | None) -> tuple[str, ...]:
    """Return the column of labels, or those that make a label together, as a person asked.

    Raises:
        DataError: none is known to hold the label, or several might.
    """
    if asked is not None:
        parts = [asked] if asked in table.columns else asked.split(",")
        return tuple(named_column(table, part.strip()) for part in parts)
    free = [name for name in table.columns if not is_of_files(table, name)]
    whole = [name for name in table.known_as(LABEL_NAMES[:-2]) if name in free]
    if whole:
        return (_one_of(table, whole),)
    parts = _car_columns(table)
    if len(parts) > 1:
        raise DataError(_ask_for_parts(table, parts))
    found = next((name for name in table.known_as(LABEL_NAMES) if name in free), None)
    if found is None:
        raise unknown_column(table, "label", "say which with --label-column")
    return (found,)


def _car_columns(table: Table) -> list[str]:
    """Return the columns of make, model and year that are there."""
    found = (table.known_as(names)[:1] for names in (MAKE_NAMES, MODEL_NAMES, YEAR_NAMES))
    return [name for names in found for name in names]


def _one_of(table: Table, columns: Sequence[str]) -> str:
    """Return the first of several columns of labels, if all of them tell the same classes."""
    first = columns[0]
    for other in columns[1:]:
        pairs = set(zip(table.cells(first), table.cells(other), strict=True))
        if not len(pairs) == len(set(table.cells(first))) == len(set(table.cells(other))):
            raise DataError(
                f"the columns {first} and {other} of {table.file} tell different classes: say "
                "which with --label-column"
            )
    return first


def _ask_for_parts(table: Table, parts: Sequence[str]) -> str:
    ways = [parts[:count] for count in range(2, len(parts) + 1)]
    ways += [[name] for name in table.known_as(MODEL_NAMES)[:1]]
    options = [
        f"--label-column {','.join(way)} ({counted(_count(table, way), 'class')})" for way in ways
    ]
    return (
        f"the columns {', '.join(parts)} of {table.file} make the class together: say which, as "
        f"{' or '.join(options)}"
    )


def _count(table: Table, columns: Sequence[str]) -> int:
    return len(set(zip(*map(table.cells, columns), strict=True)))


def labels_of(table: Table, columns: Sequence[str]) -> list[str]:
    """Return each row's label, its parts joined by a blank; "" where a part is empty."""
    rows = zip(*map(table.cells, columns), strict=True)
    return [" ".join(row) if all(row) else "" for row in rows]


def box_columns(table: Table) -> tuple[str, ...]:
    """Return the four columns of a box, left, top, right and bottom; () for none."""
    known = (table.known_as(names) for names in BOX_NAMES)
    return next((tuple(four) for four in known if len(four) == 4), ())


def odd_boxes(table: Table, columns: Sequence[str]) -> list[int]:
    """Return the rows with something in the columns of a box that is no box."""
    rows = zip(*map(table.cells, columns), strict=True) if columns else ()
    return [number for number, row in enumerate(rows) if any(row) and _box(row) is None]


def boxes_of(table: Table, columns: Sequence[str]) -> list[Box | None]:
    """Return each row's box; None where it has none."""
    if not columns:
        return [None] * len(table.rows)
    return [_box(row) for row in zip(*map(table.cells, columns), strict=True)]


def _box(values: Sequence[str]) -> Box | None:
    """Return a box from four texts; None where they are empty or no box."""
    try:
        x1, y1, x2, y2 = (round(float(value)) for value in values)
    except (ValueError, OverflowError):
        return None
    return (max(0, x1), max(0, y1), x2, y2) if x2 > max(0, x1) and y2 > max(0, y1) else None


def named_column(table: Table, asked: str) -> str:
    """Return the column that a person asked for.

    Raises:
        DataError: there is none of this name; the nearest is told.
    """
    if asked in table.columns:
        return asked
    hint = did_you_mean(asked, table.columns)
    raise DataError(f"{table.file} has no column {asked!r}{hint or _listed(table)}")


def unknown_column(table: Table, what: str, cure: str) -> DataError:
    """Return the error that no column is known to hold `what`."""
    return DataError(
        f"no column of {table.file} is known to hold the {what}{_listed(table)}; {cure}"
    )


def _listed(table: Table) -> str:
    return f"; its columns are {', '.join(table.columns)}"


def reading_sentence(table: Table, parts: Mapping[str, Iterable[str]]) -> str:
    """Say what was taken for what: `id from path, label from make and model; separated by tabs`."""
    readings = [
        f"{what} from {' and '.join(columns)}" for what, columns in parts.items() if columns
    ]
    apart = (
        f"; separated by {SEPARATORS.get(table.separator, repr(table.separator))}"
        if len(table.columns) > 1
        else ""
    )
    return ", ".join(readings) + apart
