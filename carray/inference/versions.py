"""Versions of a model package: the first bears the name alone, the next ones `NAME@2`, `NAME@3`."""

from __future__ import annotations

import re
from pathlib import Path

VERSION = re.compile(r"(?P<name>.+?)(?:@(?P<number>[1-9]\d*))?")


def version_name(name: str, number: int) -> str:
    """Return the folder's name of version `number`, counted from 1."""
    return name if number == 1 else f"{name}@{number}"


def split_version(text: str) -> tuple[str, int | None]:
    """Return a package's name, and the number of the version where `text` gives one."""
    found = VERSION.fullmatch(text)
    if found is None:
        return text, None
    number = found["number"]
    return found["name"], None if number is None else int(number)


def versions_of(models: Path, name: str) -> dict[int, Path]:
    """Return the folders of a package's versions by number, the oldest first."""
    found = {}
    for folder in models.glob("*"):
        own, number = split_version(folder.name)
        if own == name and (folder / "card.json").exists():
            found[number or 1] = folder
    return dict(sorted(found.items()))


def find_version(models: Path, text: str) -> Path | None:
    """Return the folder that `NAME` or `NAME@2` stands for; a name alone is its newest version.

    It may end in a slash, as shells complete a folder's.
    """
    name, number = split_version(text.rstrip("/"))
    found = versions_of(models, name)
    return found.get(number) if number else next(reversed(found.values()), None)


def version_note(folder: Path) -> str:
    """Say which version of several a package is; "" where there is no other."""
    name, number = split_version(folder.name)
    found = versions_of(folder.parent, name)
    if len(found) < 2 or folder not in found.values():
        return ""
    number = number or 1
    others = ", ".join(
        f"{name}@1" if each.name == name else each.name for each in found.values() if each != folder
    )
    is_newest = number == max(found)
    return (
        f"model {name}, version {number} of {len(found)}"
        f"{', the newest' if is_newest else ''} (also there: {others})"
    )
