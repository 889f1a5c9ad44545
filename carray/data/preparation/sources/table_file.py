"""Text tables as they come: separator and header are found, every cell stays text."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from carray.data.pixels.decode import IMAGE_SUFFIXES
from carray.errors import Complaints, DataError

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LOOKED_AT = 20  # rows that tell which of two separators is meant


@dataclass(frozen=True)
class Table:
    """The rows of a text table; blanks around a cell are gone."""

    file: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """As many cells each as there are columns."""
    separator: str
    has_header: bool
    """Whether the first line named the columns; else they are called `column 1`, `column 2`."""

    def cells(self, column: str) -> list[str]:
        """Return a column's cells, one a row."""
        place = self.columns.index(column)
        return [row[place] for row in self.rows]

    def known_as(self, names: Sequence[str]) -> list[str]:
        """Return the columns that bear one of `names`, written in small letters, in their order."""
        bearing = {column.lower(): column for column in reversed(self.columns)}
        return [bearing[name] for name in names if name in bearing]


def read_table(path: Path) -> Table:
    """Read a table: comma, semicolon, tab or bar; nothing is taken for a number or missing.

    A first line that names an image is no header.

    Raises:
        DataError: it is neither UTF-8 nor UTF-16 with its mark, or no table, or may be
            separated in two ways.
    """
    try:
        text = _decoded(path.read_bytes())
        declared = re.match(r"sep=(.)\r?\n", text)  # Excel's first line
        text = text[declared.end() :] if declared else text
        separator = declared[1] if declared else _separator(text, path)
        rows = [[cell.strip() for cell in row] for row in _records(text, separator) if row]
    except UnicodeDecodeError:
        raise DataError(f"{path} isn't UTF-8: save it as UTF-8") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"{path} can't be read as a table: {error}") from None
    if not rows:
        raise DataError(f"{path} can't be read as a table: it is empty")
    _refuse_blanks(rows[0], path)
    has_header = not any(names_image(cell) for cell in rows[0])
    width = len(rows[0])
    numbers = [f"column {place}" for place in range(1, width + 1)]
    names = rows[0] if has_header else numbers
    columns = tuple(name or number for name, number in zip(names, numbers, strict=True))
    complaints = Complaints()
    with complaints.heard():
        _refuse_twins(columns, path)
    with complaints.heard():
        cells = tuple(_of_width(row, width, path) for row in rows[int(has_header) :])
    complaints.refuse()
    return Table(path, columns, cells, separator, has_header)


def _decoded(content: bytes) -> str:
    """Return a table's text; two bytes at the start tell UTF-16, as Excel's "Unicode text" is."""
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_utf16 else "utf-8-sig")


def names_image(cell: str) -> bool:
    """Say whether a cell ends as the names of image files do, in any case."""
    stem, dot, ending = cell.rpartition(".")
    return bool(stem) and f"{dot}{ending}".lower() in IMAGE_SUFFIXES


def _records(text: str, separator: str) -> Iterator[list[str]]:
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)


def _separator(text: str, path: Path) -> str:
    """Return the mark that cuts the first line into most cells; of two the one that cuts the rows
    below it alike."""
    rows = {mark: list(islice(_tried(text, mark), LOOKED_AT)) for mark in SEPARATORS}
    widths = {mark: len(found[0]) if found else 0 for mark, found in rows.items()}
    most = max(widths.values())
    best = [mark for mark, width in widths.items() if width == most]
    if most < 2 or len(best) == 1:
        return best[0]
    alike = [mark for mark in best if {len(row) for row in rows[mark]} == {most}]
    if len(alike) != 1:
        marks = " or by ".join(SEPARATORS[mark] for mark in alike or best)
        raise DataError(
            f"the cells of {path} may be separated by {marks}: quote the cells that hold the other"
        )
    return alike[0]


def _tried(text: str, mark: str) -> Iterator[list[str]]:
    try:
        yield from (row for row in _records(text, mark) if row)
    except csv.Error:
        return  # another mark's, or told by whoever reads all of it


def _refuse_blanks(first: Sequence[str], path: Path) -> None:
    words = first[0].split() if len(first) == 1 else []
    if any(map(names_image, words[:-1])) and not names_image(words[-1]):
        raise DataError(
            f"the cells of {path} seem to be separated by blanks ({first[0]!r}): put commas "
            "between them, and a header above them such as image,label"
        )


def _refuse_twins(columns: Sequence[str], path: Path) -> None:
    twins = sorted({name for name in columns if columns.count(name) > 1})
    if twins:
        raise DataError(
            f"{path} has several columns {', '.join(map(repr, twins))}: name them apart"
        )


def _of_width(row: Sequence[str], width: int, path: Path) -> tuple[str, ...]:
    """Return a row of `width` cells; what is too much must be empty."""
    if any(row[width:]):
        raise DataError(
            f"the rows of {path} have {len(row)} cells, its header {width}: name every "
            f"column, and quote cells that hold a separator; the first such row is {row[0]!r}"
        )
    return (*row[:width], *[""] * (width - len(row)))
