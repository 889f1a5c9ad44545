"""The public Python API: every name opens and is documented, and names of 0.1 still work."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

import carray
from carray.options import EnsembleOptions, TuneOptions
from carray.search.request import StudyRequest


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


def test_the_typed_options_are_those_that_are_passed_on(tmp_path: Path) -> None:
    own = {"data", "space", "trials", "name", "runs", "weights"}
    assert set(TuneOptions.__annotations__) == {f.name for f in fields(StudyRequest)} - own
    known = set(inspect.signature(carray.build_ensemble).parameters)
    assert set(EnsembleOptions.__annotations__) == known - {"study", "top", "runs"}
    with pytest.raises(carray.CarrayError, match=r"no option 'refits'; did you mean 'refit'"):
        carray.tune(tmp_path, "quick", refits=3)  # type: ignore[call-arg]
