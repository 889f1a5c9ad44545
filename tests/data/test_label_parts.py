"""Make, model, body and years are read from class names, and what can't be is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from carray.data.label_parts import read_label_parts
from carray.errors import ConfigError, DataError

STANFORD = {
    "AM General Hummer SUV 2000": ("AM General", "Hummer", "SUV", "2000"),
    "Acura TL Type-S 2008": ("Acura", "TL Type-S", "", "2008"),
    "Aston Martin V8 Vantage Convertible 2012": (
        *("Aston Martin", "V8 Vantage", "Convertible", "2012"),
    ),
    "Bentley Continental Supersports Conv. Convertible 2012": (
        *("Bentley", "Continental Supersports Conv.", "Convertible", "2012"),
    ),
    "Chevrolet Silverado 1500 Hybrid Crew Cab 2012": (
        *("Chevrolet", "Silverado 1500 Hybrid", "Crew Cab", "2012"),
    ),
    "Dodge_Sprinter_Cargo_Van_2009": ("Dodge", "Sprinter", "Cargo Van", "2009"),
    "Land Rover Range Rover SUV 2012": ("Land Rover", "Range Rover", "SUV", "2012"),
    "Mercedes-Benz 300-Class Convertible 1993": (
        *("Mercedes-Benz", "300-Class", "Convertible", "1993"),
    ),
}
CATALOGUE = {
    "1시리즈_F20_2013_2015": ("1시리즈", "F20", "2013-2015"),
    "K5_3세대_2020_2022": ("K5", "3세대", "2020-2022"),
    "그랜저_HG_2011_2014": ("그랜저", "HG", "2011-2014"),
    "뉴_GV80_2024_2025": ("뉴 GV80", "", "2024-2025"),
    "Q30_2017_2019": ("Q30", "", "2017-2019"),
    "티볼리_2015_현재": ("티볼리", "", "2015-현재"),
}


def test_stanfords_names_are_read() -> None:
    found = read_label_parts(list(STANFORD))
    assert found is not None
    assert found.levels == ("make", "model", "body", "year")
    for own, wanted in zip(found.parts, STANFORD.values(), strict=True):
        assert own is not None
        assert tuple(own.get(level, "") for level in found.levels) == wanted
    assert found.notes()[1:] == ["without a body in the name: Acura TL Type-S 2008"]


def test_a_catalogues_names_are_read_and_no_make_is_guessed() -> None:
    found = read_label_parts(list(CATALOGUE))
    assert found is not None
    assert found.levels == ("model", "generation", "year")
    for own, wanted in zip(found.parts, CATALOGUE.values(), strict=True):
        assert own is not None
        assert tuple(own.get(level, "") for level in found.levels) == wanted
    assert "no name tells a make" in found.notes()


def test_names_that_tell_nothing_are_not_read() -> None:
    assert read_label_parts(["daffodil", "snowdrop", "Audi TT Coupe 2012"]) is None


def test_an_unread_name_is_told_and_stays_alone() -> None:
    found = read_label_parts(["Audi TT Coupe 2012", "Audi TT Coupe 2008", "a truck"])
    assert found is not None
    assert found.groups("make") == ([0, 0, 1], ["Audi", "a truck"])
    assert found.notes()[1] == "not read, and a group of their own: a truck"


def test_a_pattern_of_the_users_reads_other_names() -> None:
    found = read_label_parts(["TT (Audi), 2008-2010", "M3 (BMW)"], "{model} ({make})[, {year}]")
    assert found is not None
    assert found.parts[0] == {"model": "TT", "make": "Audi", "year": "2008-2010"}
    assert found.key(1, "year") == ("BMW", "M3", "")


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("{mke} {model}", "has no field 'mke'; did you mean 'make'?; they are make, model"),
        ("{make} {make}", "name each field once"),
        ("{make} {model}[", "close each bracket"),
        ("{make}/{model}", "fits no class name, such as 'Audi TT'"),
    ],
)
def test_a_pattern_that_says_nothing_is_refused(pattern: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_label_parts(["Audi TT"], pattern)
    assert told in str(caught.value)


def test_a_table_tells_the_parts(tmp_path: Path) -> None:
    file = tmp_path / "parts.csv"
    file.write_text("class;make;model;year\na;Audi;TT;2011\nb;Audi;S4;2007\n", encoding="utf-8")
    found = read_label_parts(["b", "a", "c"], str(file))
    assert found is not None
    assert found.groups("model")[1] == ["Audi S4", "Audi TT", "c"]
    assert found.unread == ("c",)
    with pytest.raises(DataError, match="has no class of the data set in its column class"):
        read_label_parts(["other"], str(file))
