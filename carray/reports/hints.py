"""Commands that make sense next, as they work from the folder that a person is in."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from carray.records import RunsFolder


def shown_path(path: Path) -> str:
    """Return `path` as short as a shell takes it: relative where it is below this folder."""
    here = Path.cwd()
    return quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def runs_option(runs: Path | None) -> str:
    """Return ` --runs PATH`, or nothing where commands look in `runs` by themselves."""
    found = RunsFolder.at(runs)
    return "" if found == RunsFolder.at() else f" --runs {shown_path(found.path)}"
