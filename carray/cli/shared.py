"""Options and small habits that commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carray.errors import ConfigError

if TYPE_CHECKING:
    from carray.records import StudyFolder

RunsOption = Annotated[
    Path | None,
    typer.Option("--runs", help="Folder of studies and models; default: $CARRAY_RUNS, else runs."),
]
DataArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="A folder made by `data prepare`.")
]
StudyOption = Annotated[
    str | None, typer.Option("--study", help="The study; default: the newest search.")
]
NewStudyOption = Annotated[
    str | None, typer.Option("--study", help="Its name; default: the space's and the data's.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="NAME=VALUE, fixed in the configuration; may be repeated."),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="A folder of pretrained weights, looked in first."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]


def parse_sets(sets: Sequence[str]) -> dict[str, Any]:
    """Read `NAME=VALUE` pairs; values as YAML 1.2 reads them (3e-4 is a float, `no` is text).

    Raises:
        ConfigError: a pair has no `=`, or its value is no scalar.
    """
    from carray.yaml_loader import parse

    values = {}
    for pair in sets:
        name, found, text = pair.partition("=")
        if not found or not name.strip():
            raise ConfigError(f"--set {pair!r} must be NAME=VALUE, as in optimizer.lr=3e-4")
        values[name.strip()] = parse(text, f"--set {name.strip()}").value
    return values


def print_study(folder: StudyFolder, as_json: bool) -> None:
    """Print a study's table and what to type next, or all of it as one JSON object."""
    import json

    from carray.reports.study import study_json, study_lines

    if as_json:
        print(json.dumps(study_json(folder), ensure_ascii=False))
        return
    for line in study_lines(folder):
        print(line)
