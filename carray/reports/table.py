"""Text tables of fixed columns, and 95 % intervals as text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from carray.predictions.statistics import Interval

SPEC = re.compile(r"([<>])(\+?)(\d+)(.*)")  # alignment, sign, width, and how a number is written
CLIP = re.compile(r"\.\d+")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the head, then a line for each row.

    Args:
        columns: `HEAD:SPEC` of each, as in `log-loss:>10.4f`: a format of Python's with alignment
            and width; `<23.22` cuts text after 22 columns of the terminal.
        rows: a cell a column: text, a number, or an `Interval`; None and NaN stay empty.
    """
    return [table_row(columns, map(_head, columns)), *(table_row(columns, row) for row in rows)]


def table_row(columns: Sequence[str], cells: Iterable[object]) -> str:
    """Return one line of `table`."""
    return "".join(_cell(*each) for each in zip(columns, cells, strict=True)).rstrip()


def interval_text(found: Interval, spec: str = ".4f", bounds: str | None = None) -> str:
    """Return `VALUE [LOW, HIGH]`, the bounds in a format of their own where they have one."""
    low, high = (format(bound, bounds or spec) for bound in (found.low, found.high))
    return f"{found.value:{spec}} [{low}, {high}]"


def value_text(value: object) -> str:
    """Return a value of a configuration as a table has room for it; an empty text is `none`."""
    return f"{value:.3g}" if isinstance(value, float) else str(value) or "none"


def cells_of(text: str) -> int:
    """Return how many columns of a terminal `text` takes; a Korean letter takes two."""
    from rich.cells import cell_len

    return cell_len(text)


def _head(column: str) -> str:
    return column.rpartition(":")[0]


def _cell(column: str, value: object) -> str:
    from rich.cells import set_cell_size

    found = SPEC.fullmatch(column.rpartition(":")[2])
    if found is None:
        raise ValueError(f"the column {column!r} must end in a format, as in log-loss:>10.4f")
    side, sign, width, rest = found.groups()
    if isinstance(value, str):
        most = int(rest[1:]) if CLIP.fullmatch(rest) else cells_of(value)
        text = set_cell_size(value, min(most, cells_of(value)))
    else:
        text = _text(value, sign + rest)
    padding = " " * (int(width) - cells_of(text))
    return text + padding if side == "<" else padding + text


def _text(value: object, spec: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return interval_text(value, spec) if isinstance(value, Interval) else format(value, spec)
