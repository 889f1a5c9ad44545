"""Text tables and sentences that fit a terminal, and 95 % intervals as text.

Files and other programs get every column at its full width; `within` says how wide a terminal is.
"""

from __future__ import annotations

import math
import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from carray.errors import as_yaml
from carray.predictions.statistics import Interval

SPEC = re.compile(r"([<>])(\+?)(\d+)(.*)")  # alignment, sign, width, and how a number is written
COMMAND = re.compile(r"( +|next: )(carray|python) ")
USUAL = 100  # columns of a sentence that goes to no terminal
NAME = 20  # names aren't cut below this width while a column can be spared
STUB = 8

_limit: ContextVar[int | None] = ContextVar("columns of the terminal", default=None)


class Whole(str):
    """A line that is never wrapped: a table's, or code."""


@contextmanager
def within(columns: int | None) -> Iterator[None]:
    """Have tables and sentences made within take at most so many columns; None: all they need."""
    token = _limit.set(columns)
    try:
        yield
    finally:
        _limit.reset(token)


def terminal_columns(stream: TextIO | None = None) -> int | None:
    """Return the columns of `COLUMNS` or of the terminal; None where text goes elsewhere.

    Args:
        stream: where text goes; None takes stdout.
    """
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    stream = stream or sys.stdout
    return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else None


def fitted(text: str, stream: TextIO) -> str:
    """Return sentences as they fit the terminal that `stream` is; elsewhere they stay one line."""
    columns = terminal_columns(stream)
    if columns is None:
        return text
    with within(columns):
        return "\n".join(part for line in text.split("\n") for part in wrapped(line))


def line_width(usual: int = USUAL) -> int:
    """Return how many columns a sentence may take."""
    return min(usual, _limit.get() or usual)


def wrapped(line: str) -> list[str]:
    """Cut a sentence into lines that fit; paths are whole, and a command can still be typed."""
    width = line_width()
    if isinstance(line, Whole) or cells_of(line) <= width or " " not in line.strip():
        return [line]
    indent = line[: len(line) - len(line.lstrip())] + "  "
    if not COMMAND.match(line):
        return textwrap.wrap(
            line,
            width,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    if _limit.get() is None:
        return [line]
    lines, words = [""], re.split(r"(?= --?[a-z])", line)
    for word in words:
        if lines[-1].strip() and cells_of(lines[-1] + word) > width - 2:
            lines.append(indent + " ")
        lines[-1] += word
    return [*(f"{line} \\" for line in lines[:-1]), lines[-1]]


@dataclass(frozen=True)
class _Column:
    """One column's texts, and how they stand."""

    head: str
    side: str
    width: int
    texts: list[str]
    is_text: bool

    @property
    def content(self) -> int:
        return max(map(cells_of, self.texts), default=0)

    @property
    def least(self) -> int:
        """As narrow as it can be without cutting: a head may break at its spaces."""
        return max(self.content, *map(cells_of, self.head.split() or [""]))

    @property
    def natural(self) -> int:
        """As wide as it was asked to be, or more where that would cut a text."""
        needed = max(self.content, cells_of(self.head))
        return self.width if needed + self.is_text <= self.width else needed + 1

    def padded(self, text: str, width: int) -> str:
        padding = " " * (width - cells_of(text))
        return text + padding if self.side == "<" else padding + text


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    spare: Sequence[str] = (),
    rule: bool = False,
) -> list[str]:
    """Return the head, in several lines where the terminal is narrow, then a line for each row.

    What doesn't fit is set closer, then names are shortened in their middle, then columns left out.

    Args:
        columns: `HEAD:SPEC` of each, as in `log-loss:>10.4f`: a format of Python's with alignment
            and least width.
        rows: a cell a column: text, a number, or an `Interval`; None and NaN stay empty.
        spare: heads of columns that can be left out, the first ones first.
        rule: draw a line below the head.
    """
    made = _columns(columns, [list(row) for row in rows])
    widths, gap, heads = [one.natural for one in made], "", [[one.head] for one in made]
    limit = _limit.get()
    if limit is not None and max(map(cells_of, _lines(made, widths, gap, heads))) > limit:
        made, widths, gap = _squeezed(made, limit, spare)
        heads = [textwrap.wrap(one.head, width) for one, width in zip(made, widths, strict=True)]
    lines = _lines(made, widths, gap, heads)
    place = max(map(len, heads))
    line = ["-" * max(map(cells_of, lines[:place]))] if rule else []
    return [*lines[:place], *line, *lines[place:]]


def table_row(columns: Sequence[str], cells: Iterable[object]) -> str:
    """Return one line of `table`."""
    made = _columns(columns, [list(cells)])
    return _lines(made, [one.natural for one in made], "", [[] for _ in made])[-1]


def interval_text(found: Interval, spec: str = ".4f", bounds: str | None = None) -> str:
    """Return `VALUE [LOW, HIGH]`, the bounds in a format of their own where they have one.

    Of one image no interval is known, which is said.
    """
    if math.isnan(found.low):
        return f"{found.value:{spec}}, no interval"
    low, high = (format(bound, bounds or spec) for bound in (found.low, found.high))
    return f"{found.value:{spec}} [{low}, {high}]"


def value_text(value: object) -> str:
    """Return a value of a configuration as a table has room for it; an empty text is `none`.

    Of a folder, which a teacher's package is, it is the name.
    """
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return f"{value:.3g}" if isinstance(value, float) else as_yaml(value, quoted=False) or "none"


def cells_of(text: str) -> int:
    """Return how many columns of a terminal `text` takes; a Korean letter takes two."""
    from rich.cells import cell_len

    return cell_len(text)


def shortened(texts: Sequence[str], width: int) -> list[str]:
    """Cut the middle out of texts wider than `width`, where they stay told apart best.

    Of places that do as well, the one that leaves the first third.
    """
    heads = sorted(range(width), key=lambda head: abs(head - width // 3))
    cut = ([_without_middle(text, head, width) for text in texts] for head in heads)
    return max(cut, key=lambda each: len(set(each)))


def _without_middle(text: str, head: int, width: int) -> str:
    from rich.cells import set_cell_size

    if cells_of(text) <= width:
        return text
    end = set_cell_size(text[::-1], width - 1 - head)[::-1]
    return set_cell_size(text, head).rstrip() + "…" + end.lstrip()


def _squeezed(
    columns: Sequence[_Column], limit: int, spare: Sequence[str]
) -> tuple[list[_Column], list[int], str]:
    """Return the columns that are kept, as they fit, their widths, and what is between them."""
    for count in range(len(spare) + 1):
        kept = [one for one in columns if one.head not in spare[:count]]
        for gap in ("  ", " "):
            room = limit - len(gap) * (len(kept) - 1)
            widths = _narrowed(kept, room, STUB if count == len(spare) and gap == " " else NAME)
            if sum(widths) <= room:
                break
        else:
            continue
        break
    cut = [
        _Column(one.head, one.side, one.width, shortened(one.texts, width), True)
        if one.content > width
        else one
        for one, width in zip(kept, widths, strict=True)
    ]
    return cut, widths, gap


def _narrowed(columns: Sequence[_Column], room: int, least: int) -> list[int]:
    """Return widths: names give way down to `least`, and heads have what is left."""
    widths = [one.least for one in columns]
    names = [place for place, one in enumerate(columns) if one.is_text and one.side == "<"]
    while sum(widths) > room:
        widest = max(names, key=lambda place: widths[place], default=None)
        if widest is None or widths[widest] <= least:
            break
        widths[widest] -= 1
    for place, one in enumerate(columns):
        more = min(cells_of(one.head) - widths[place], room - sum(widths))
        widths[place] += max(0, more)
    return widths


def _columns(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[_Column]:
    made = []
    by_column = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    for column, cells in zip(columns, by_column, strict=True):
        head, _, spec = column.rpartition(":")
        found = SPEC.fullmatch(spec)
        if found is None:
            raise ValueError(f"the column {column!r} must end in a format, as in log-loss:>10.4f")
        side, sign, width, rest = found.groups()
        texts = [_text(value, sign + rest) for value in cells]
        is_text = any(isinstance(value, str) for value in cells)
        made.append(_Column(head, side, int(width), texts, is_text and side == "<"))
    return made


def _lines(
    columns: Sequence[_Column], widths: Sequence[int], gap: str, heads: Sequence[list[str]]
) -> list[str]:
    height = max(map(len, heads), default=0)
    cells = [
        [*[""] * (height - len(head)), *head, *one.texts]
        for one, head in zip(columns, heads, strict=True)
    ]
    rows = zip(*cells, strict=True)
    lines = (gap.join(map(_Column.padded, columns, row, widths)).rstrip() for row in rows)
    return [Whole(line) for line in lines]


def _text(value: object, spec: str) -> str:
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return interval_text(value, spec) if isinstance(value, Interval) else format(value, spec)
