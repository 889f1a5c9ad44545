"""Text tables."""

import math

import pytest

from carray.predictions.statistics import Interval
from carray.reports.table import (
    Whole,
    cells_of,
    interval_text,
    shortened,
    table,
    table_row,
    within,
    wrapped,
)


def test_a_table_aligns_text_numbers_and_intervals_under_their_heads() -> None:
    columns = ("name:<8", "images:>7,", "loss:>8.3f", "gain:>+24.2f")
    rows = [
        ("resnet50", 1234, 0.5, Interval(0.1, -0.05, 0.25)),
        ("knn", None, math.nan, "none"),
        ("empty", 7, 1, None),
    ]
    assert table(columns, rows) == [
        "name      images    loss                    gain",
        "resnet50   1,234   0.500    +0.10 [-0.05, +0.25]",
        "knn                                         none",
        "empty          7   1.000",
    ]


def test_columns_are_those_of_a_terminal_where_letters_take_two() -> None:
    rows = [("기아모닝", 3), ("audi", 12)]
    assert {cells_of(line) for line in table(("class:<9", "images:>4"), rows)[1:]} == {16}
    rows[0] = ("기아모닝기아모닝", 3)
    with within(18):
        lines = table(("class:<9", "images:>4"), rows)
    assert {cells_of(line) for line in lines} == {18}
    assert lines[1].startswith("기…아모닝 ")  # half a letter is none


def test_a_row_needs_a_cell_a_column_and_a_column_a_format() -> None:
    with pytest.raises(ValueError, match="zip"):
        table_row((":<4", ":>4"), ("one",))
    with pytest.raises(ValueError, match="must end in a format"):
        table_row(("log-loss",), (0.5,))


def test_an_intervals_bounds_may_have_a_format_of_their_own() -> None:
    found = Interval(0.12345, 0.1, 0.2)
    assert interval_text(found) == "0.1235 [0.1000, 0.2000]"
    assert interval_text(found, "+.3f", "+.1f") == "+0.123 [+0.1, +0.2]"


SCORED = ("model:<12", "params:>8", "time:>7", "test log-loss:>22.3f")
TRIALS = [
    ("mobilenetv3_small_050.lamb_in1k + random_forest", "1.00 M", "1:00", Interval(0.5, 0.4, 0.6)),
    ("mobilenetv3_small_050.lamb_in1k + knn", "1.00 M", "1:00", Interval(0.7, 0.6, 0.8)),
]


@pytest.mark.parametrize("columns", [100, 80, 72, 64, 56, 48])
def test_a_narrow_table_keeps_its_score_and_tells_its_names_apart(columns: int) -> None:
    with within(columns):
        lines = table(SCORED, TRIALS, spare=("params", "time"), rule=True)
    assert max(map(len, lines)) <= columns
    assert "log-loss" in " ".join(lines[:-3])
    for line, name, score in zip(lines[-2:], ("forest", "knn"), ("0.500", "0.700"), strict=True):
        assert name in line
        assert f"{score} [" in line
    assert ("params" in " ".join(lines)) == (columns >= 56)


def test_a_table_that_goes_to_no_terminal_is_not_cut() -> None:
    for line, row in zip(table(SCORED, TRIALS)[1:], TRIALS, strict=True):
        assert line.startswith(f"{row[0]} ")
        assert "1.00 M" in line


def test_a_cut_keeps_what_differs() -> None:
    names = ["convnext_tiny.fb_in1k.pth", "convnext_base.fb_in1k.pth", "convnext_tiny.in12k.pth"]
    assert len(set(shortened(names, 14))) == 3
    assert {len(name) for name in shortened(names, 14)} == {14}
    assert shortened(["short", "longer than that"], 9) == ["short", "lon…that"]


def test_a_sentence_is_cut_a_command_continues_and_code_stays() -> None:
    command = "  carray ensemble --study autumn --top 3 --runs /somewhere/else/runs"
    assert wrapped(command) == [command]
    with within(40):
        assert wrapped("note: one two three four five six seven eight") == [
            "note: one two three four five six seven",
            "  eight",
        ]
        lines = wrapped(command)
        assert [line.endswith(" \\") for line in lines] == [True, True, False]
        assert "".join(line.removesuffix("\\") for line in lines).split() == command.split()
        assert wrapped(Whole(command)) == [command]
