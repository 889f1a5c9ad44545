"""Make, model, generation, body and years, read from the names of car classes.

`AM General Hummer SUV 2000` and `K5_3세대_2020_2022` are read as they are, other names by a pattern
or a table of the user's. What a name doesn't say stays empty; names that can't be read are told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from carray.data.preparation.sources.columns import LABEL_NAMES, unknown_column
from carray.data.preparation.sources.listing import nfc
from carray.data.preparation.sources.table_file import read_table
from carray.errors import ConfigError, DataError, did_you_mean, some_of

LEVELS = ("make", "model", "generation", "body", "year")
"""From the coarsest on; two classes agree at a level if they agree in all up to it."""
AUTO = "auto"
FEWEST_READ = 0.5  # share of the classes; of fewer, a fit is an accident
MAKES = (
    *("AM General", "Alfa Romeo", "Aston Martin", "Austin Healey", "De Tomaso", "Great Wall"),
    *("KG Mobility", "Land Rover", "Lynk & Co", "Mercedes Benz", "Renault Samsung"),
    *("Rolls Royce", "Ssang Yong", "Volkswagen Commercial Vehicles"),
)
"""Makes of several words; any other is one word."""
BODIES = (
    *("Access Cab", "Club Cab", "Crew Cab", "Double Cab", "Extended Cab", "King Cab", "Quad Cab"),
    *("Regular Cab", "SuperCab", "SuperCrew", "Cargo Van", "Passenger Van", "Wagon Van", "Minivan"),
    *("Van", "Convertible", "Cabriolet", "Roadster", "Spyder", "Coupe", "Crossover", "Estate"),
    *("Fastback", "Hatchback", "Liftback", "Limousine", "Pickup", "Sedan", "SUV", "Targa", "Truck"),
    "Wagon",
)
YEAR = r"(?:19|20)\d\d"
CARS = "{make} {model}[ {body}] {year}"
CATALOGUE = "{model}[ {generation}] {from} {to}"
NEW = ("뉴", "더 뉴", "더뉴", "디 올뉴", "디 올 뉴", "올뉴", "올 뉴")  # before a model, none itself
GENERATION = r"\d+세대(?: [^\d\s]+)?|(?=\w*\d)[A-Z]{1,3}\d{0,3}[a-z]?|[A-Z]{2}"
"""Of a catalogue: 3세대, F20, HG."""
FIELDS = {
    "make": "|".join(map(re.escape, MAKES)) + r"|\S+?",
    "model": r"\S.*?",
    "generation": r"\S.*?",
    "body": "|".join(BODIES) + r"|\S+",
    "year": rf"{YEAR}(?:\s*[-~–]\s*(?:{YEAR})?)?",
    "from": YEAR,
    "to": rf"{YEAR}|\S+",
}
STRICT = {
    "body": "|".join(BODIES),
    "generation": "".join(rf"(?<!^{word} )" for word in NEW) + f"(?:{GENERATION})",
    "to": rf"{YEAR}|현재|present|now",
}
"""Of the names that are read without being told how: only what is known to be one."""

Parts = Mapping[str, str]  # level -> what the name says of it


@dataclass(frozen=True)
class LabelParts:
    """What the names of a data set's classes say of make, model, generation, body and year."""

    classes: tuple[str, ...]
    parts: tuple[Parts | None, ...]
    """Of each class; None where its name couldn't be read."""
    reading: str
    """How they were read."""

    @cached_property
    def levels(self) -> tuple[str, ...]:
        """The levels that some class names, the coarsest first."""
        read = [each for each in self.parts if each is not None]
        return tuple(level for level in LEVELS if any(each.get(level) for each in read))

    @property
    def unread(self) -> tuple[str, ...]:
        """The classes whose names couldn't be read."""
        return tuple(n for n, p in zip(self.classes, self.parts, strict=True) if p is None)

    def without(self, level: str) -> tuple[str, ...]:
        """Return the classes that were read and don't name a level."""
        pairs = zip(self.classes, self.parts, strict=True)
        return tuple(name for name, own in pairs if own is not None and not own.get(level))

    def key(self, place: int, level: str) -> tuple[str, ...]:
        """Return what classes have in common that agree up to a level; an unread one is alone."""
        own = self.parts[place]
        if own is None:
            return ("", self.classes[place])
        upto = self.levels[: self.levels.index(level) + 1]
        return tuple(own.get(each, "") for each in upto)

    def groups(self, level: str) -> tuple[list[int], list[str]]:
        """Return the group of each class up to a level, numbered, and the groups' names."""
        keys = [self.key(place, level) for place in range(len(self.classes))]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        return [numbers[key] for key in keys], [" ".join(filter(None, key)) for key in numbers]

    def notes(self) -> list[str]:
        """Say what was read as what, and what couldn't be."""
        read = len(self.classes) - len(self.unread)
        lines = [f"{read} of {len(self.classes)} class names read as {self.reading}"]
        if self.unread:
            lines.append(f"not read, and a group of their own: {some_of(self.unread)}")
        if "make" not in self.levels:
            lines.append("no name tells a make")
        without = ((level, self.without(level)) for level in self.levels)
        lines += [f"without a {level} in the name: {some_of(own)}" for level, own in without if own]
        return lines


def read_label_parts(classes: Sequence[str], how: str = AUTO) -> LabelParts | None:
    """Read the parts of class names.

    Args:
        classes: the names.
        how: `auto`; a pattern such as `{make} {model}[ {body}] {year}`, where what is in brackets
            may be missing; or a table with a column of classes and columns named as in `LEVELS`.

    Returns:
        None where `auto` finds no way to read at least half of the names.

    Raises:
        ConfigError: the pattern has an unknown field, or fits no class.
        DataError: the table can't be read, or has none of the classes or columns.
    """
    if how != AUTO:
        return _by_pattern(classes, how) if "{" in how else _by_table(classes, Path(how))
    ways = [_matched(classes, pattern, strict=True) for pattern in (CATALOGUE, CARS)]
    best = max(ways, key=lambda found: len(found.classes) - len(found.unread))
    return best if len(best.unread) <= (1 - FEWEST_READ) * len(classes) and classes else None


def _by_pattern(classes: Sequence[str], pattern: str) -> LabelParts:
    found = _matched(classes, pattern, strict=False)
    if len(found.unread) == len(classes):
        raise ConfigError(
            f"--label-parts {pattern!r} fits no class name, such as {classes[0]!r}: write between "
            "the fields what stands between them there"
        )
    return found


def _matched(classes: Sequence[str], pattern: str, *, strict: bool) -> LabelParts:
    """Read names with a pattern; in strict reading `_` counts as a blank."""
    compiled = re.compile(_regex(pattern, {**FIELDS, **(STRICT if strict else {})}))
    parts = []
    for name in classes:
        text = nfc(name.replace("_", " ") if strict else name).strip()
        found = compiled.fullmatch(text)
        parts.append(_with_years(found.groupdict()) if found else None)
    shown = re.sub(r"[{}]", "", pattern)
    return LabelParts(tuple(classes), tuple(parts), f"`{shown}`")


def _regex(pattern: str, fields: Mapping[str, str]) -> str:
    """Return a pattern of fields as a regular expression; brackets are what may be missing."""
    text = ""
    for step in re.split(r"(\{[^{}]*\}|[\[\]])", pattern):
        if step.startswith("{"):
            name = step[1:-1]
            if name not in fields:
                raise ConfigError(
                    f"--label-parts {pattern!r} has no field {name!r}"
                    f"{did_you_mean(name, fields)}; they are {', '.join(fields)}"
                )
            text += f"(?P<{name}>{fields[name]})"
        else:
            text += {"[": "(?:", "]": ")?"}.get(step, re.escape(step))
    try:
        re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"--label-parts {pattern!r} can't be read ({error}): name each field once, and close "
            "each bracket"
        ) from None
    return text


def _with_years(found: Mapping[str, str | None]) -> Parts:
    """Return parts with `from` and `to` as one span of years."""
    own = {level: value for level, value in found.items() if value and level in LEVELS}
    years = [value for name in ("from", "to") if (value := found.get(name))]
    return {**own, "year": "-".join(years)} if years else own


def _by_table(classes: Sequence[str], file: Path) -> LabelParts:
    table = read_table(file)
    known = table.known_as([name for name in LABEL_NAMES if name not in LEVELS])
    if not known:
        raise unknown_column(table, "class", "call one class")
    levels = {level: column for level in LEVELS for column in table.known_as([level])}
    if not levels:
        raise unknown_column(table, "parts", f"call them {', '.join(LEVELS)}")
    rows = zip(*map(table.cells, levels.values()), strict=True)
    by_name = {
        nfc(name): dict(zip(levels, row, strict=True))
        for name, row in zip(table.cells(known[0]), rows, strict=True)
    }
    parts = tuple(by_name.get(nfc(name)) for name in classes)
    if not any(parts):
        raise DataError(
            f"{file} has no class of the data set in its column {known[0]}, such as "
            f"{classes[0]!r}: write them as the data set does"
        )
    return LabelParts(tuple(classes), parts, f"{file.name} has them ({', '.join(levels)})")
