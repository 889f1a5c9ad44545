"""Text tables."""

import math

import pytest

from carray.predictions.statistics import Interval
from carray.reports.table import cells_of, interval_text, table, table_row


def test_a_table_aligns_text_numbers_and_intervals_under_their_heads() -> None:
    columns = ("name:<8.6", "images:>7,", "loss:>8.3f", "gain:>+24.2f")
    rows = [
        ("resnet50", 1234, 0.5, Interval(0.1, -0.05, 0.25)),
        ("knn", None, math.nan, "none"),
        ("empty", 7, 1, None),
    ]
    assert table(columns, rows) == [
        "name     images    loss                    gain",
        "resnet    1,234   0.500    +0.10 [-0.05, +0.25]",
        "knn                                        none",
        "empty         7   1.000",
    ]


def test_columns_are_those_of_a_terminal_where_letters_take_two() -> None:
    lines = table(("class:<9.7", "images:>4"), [("기아모닝", 3), ("audi", 12)])
    assert {cells_of(line) for line in lines[1:]} == {13}
    assert lines[1].startswith("기아모 ")  # half a letter is none


def test_a_row_needs_a_cell_a_column_and_a_column_a_format() -> None:
    with pytest.raises(ValueError, match="zip"):
        table_row((":<4", ":>4"), ("one",))
    with pytest.raises(ValueError, match="must end in a format"):
        table_row(("log-loss",), (0.5,))


def test_an_intervals_bounds_may_have_a_format_of_their_own() -> None:
    found = Interval(0.12345, 0.1, 0.2)
    assert interval_text(found) == "0.1235 [0.1000, 0.2000]"
    assert interval_text(found, "+.3f", "+.1f") == "+0.123 [+0.1, +0.2]"
