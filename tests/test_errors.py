"""What sentences are made of."""

from __future__ import annotations

import pytest

from carray.errors import as_yaml, counted, some_of


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "lane", "0 lanes"),
        (1, "class", "1 class"),
        (2, "class", "2 classes"),
        (1, "known recipe", "1 known recipe"),
        (1200, "near-duplicate", "1,200 near-duplicates"),
    ],
)
def test_a_number_of_things(count: int, noun: str, text: str) -> None:
    assert counted(count, noun) == text


def test_a_number_of_things_with_their_verb() -> None:
    assert [counted(n, "image was", "images were") for n in (1, 2)] == [
        "1 image was",
        "2 images were",
    ]


def test_some_of_many_names() -> None:
    assert some_of(["a", "b"]) == "a, b"
    assert some_of(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_a_value_is_said_as_its_file_has_it() -> None:
    value = {"a": [True, None, 1e-05], "b": ("x", {})}
    assert as_yaml(value) == "{a: [true, null, 1e-05], b: ['x', {}]}"
    assert [as_yaml(each, quoted=False) for each in ("adamw", False)] == ["adamw", "false"]
