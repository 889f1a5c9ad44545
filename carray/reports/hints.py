"""Commands that make sense next, as they work from the folder that a person is in."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import join, quote, split
from shutil import which

from carray.runs_folder import RunsFolder


def shown_path(path: Path) -> str:
    """Return `path` as short as a command takes it: relative where it is below this folder."""
    here = Path.cwd()
    shown = str(path.relative_to(here) if path.is_relative_to(here) else path)
    return quote(f"./{shown}" if shown.startswith("-") else shown)  # -d2 would be an option


def command() -> str:
    """Return what a person types here for `carray`: its path where the shell doesn't find it."""
    own = Path(sys.executable).with_name("carray")
    found = which("carray")
    return "carray" if found and Path(found).samefile(own) else shown_path(own)


def runs_option(runs: Path | str | None) -> str:
    """Return ` --runs PATH`, or nothing where commands look in `runs` by themselves."""
    found = RunsFolder.at(runs)
    if found == RunsFolder.at():
        return ""
    return f" --runs {quote(found.shown) if found.mirror else shown_path(found.path)}"


def in_runs(command: str, runs: str) -> str:
    """Return a recorded command for the folder of studies that `runs`, a `runs_option`, names."""
    words: list[str] = []
    for word in split(command):
        if words[-1:] == ["--runs"]:
            words.pop()
        elif not word.startswith("--runs="):
            words.append(word)
    return join(words) + runs


def shown_model(package: Path) -> str:
    """Return a model package as a command takes it: its name and where that is, else its folder."""
    if package.parent.name != "models":
        return shown_path(package)
    return quote(package.name) + runs_option(package.parents[1])


def predict_hint(package: Path) -> str:
    """Return the command that asks a model package."""
    runs = runs_option(package.parents[1])
    return f"  carray predict {quote(package.name)} IMAGES --out predictions.csv{runs}"
