"""The public Python API: every name opens and is documented, and names of 0.1 still work."""

from __future__ import annotations

import pytest

import carray


def test_every_name_is_there_and_documented() -> None:
    assert sorted(carray._HOMES) == sorted(carray.__all__) == dir(carray)
    for name in carray.__all__:
        assert getattr(carray, name).__doc__, name


@pytest.mark.parametrize(("old", "new"), carray._RENAMED.items())
def test_a_renamed_function_keeps_its_old_name_for_one_release(old: str, new: str) -> None:
    assert getattr(carray, old) is getattr(carray, new)
    assert old not in carray.__all__


def test_a_space_is_still_loaded_by_its_class() -> None:
    assert carray.SearchSpace.load("quick").hash == carray.load_space("quick").hash


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'climbs'"):
        carray.climbs  # noqa: B018
