"""Options that commands share, and printing their results as text or JSON."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from carray.errors import ConfigError

if TYPE_CHECKING:
    from carray.records import StudyFolder

ResultT = TypeVar("ResultT")

RunsOption = Annotated[
    str | None,
    typer.Option(
        "--runs",
        help="Folder of studies and models, or its URL at s3:// and the like; default: "
        "$CARRAY_RUNS, else runs.",
    ),
]
DataArgument = Annotated[
    str, typer.Argument(metavar="DIR", help="A folder made by `data prepare`, or its URL.")
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
TestOption = Annotated[
    bool, typer.Option("--test/--no-test", help="Open the test split; it is recorded.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
ModelArgument = Annotated[
    str, typer.Argument(help="A model package (name or folder), or a trial: STUDY/NUMBER.")
]

LabelPartsOption = Annotated[
    str,
    typer.Option(
        help="How class names are read: auto, a pattern such as "
        r"'{make} {model}\[ {body}] {year}', or a table of class, make, model, body, year."
    ),
]


def check_models(runs: str | None, *models: str) -> None:
    """Refuse a name that is no model's, before what is slow to import."""
    from carray.inference.inputs import check_model
    from carray.runs_folder import RunsFolder

    for model in models:
        check_model(RunsFolder.at(runs), model)


def check_studies(runs: str | None, *studies: str | None) -> None:
    """Refuse a name that is no study's, before what is slow to import; None is the newest's."""
    from carray.runs_folder import RunsFolder

    for study in studies:
        RunsFolder.at(runs).find_study(study)


def check_data(data: str) -> None:
    """Refuse a folder that is no data folder, before what is slow to import."""
    from carray.data.manifest import check_data_folder

    check_data_folder(data)


def renamed(old: str, given: ResultT | None, new: str, value: ResultT) -> ResultT:
    """Return `given` by an option's old name, and say its new one; `value` where it wasn't used."""
    if given is None:
        return value
    print(f"{old} is {new} now; the old name goes with the next version", file=sys.stderr)
    return given


@contextmanager
def told_if_interrupted(what_is_left: str) -> Iterator[None]:
    """Say on Ctrl-C, in one sentence, what there is now."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\ninterrupted: {what_is_left}", file=sys.stderr, flush=True)
        raise


def parse_sets(sets: Sequence[str]) -> dict[str, Any]:
    """Read `NAME=VALUE` pairs; values as YAML 1.2 reads them (3e-4 is a float, `no` is text).

    Raises:
        ConfigError: a pair has no `=`, its name is no parameter's, or its value is no scalar.
    """
    from carray.config import check_parameter
    from carray.yaml_loader import parse

    values = {}
    for pair in sets:
        name, found, text = pair.partition("=")
        if not found or not name.strip():
            raise ConfigError(f"--set {pair!r} must be NAME=VALUE, as in optimizer.lr=3e-4")
        check_parameter(name.strip())
        values[name.strip()] = parse(text, f"--set {name.strip()}").value
    return values


def command_line() -> str:
    """Return what was typed, as it can be typed again; "" where it wasn't a `carray` command."""
    program, *words = sys.argv
    return shlex.join(["carray", *words]) if Path(program).stem in ("carray", "__main__") else ""


def emit(
    result: ResultT,
    lines: Callable[[ResultT], Iterable[str]],
    as_json: bool,
    data: Callable[[ResultT], object] = lambda result: result,
    indent: int | None = None,
) -> None:
    """Print a command's result: its `lines` of text, or its `data` as one JSON value."""
    import json

    from pydantic import BaseModel

    from carray.json_file import to_jsonable

    if not as_json:
        say(lambda: lines(result))
        return
    shown = data(result)
    if isinstance(shown, BaseModel):
        print(shown.model_dump_json(indent=indent))
    else:
        print(json.dumps(to_jsonable(shown), ensure_ascii=False, allow_nan=False))


def say(lines: Callable[[], Iterable[str]]) -> None:
    """Print lines, as wide as the terminal; `lines` makes them, so that tables know how wide."""
    from carray.reports.table import terminal_columns, within, wrapped

    columns = terminal_columns()
    with within(columns):
        for line in lines():
            for part in line.split("\n") if "\n" in line else (line,):
                print("\n".join(wrapped(part) if columns else [part]), flush=True)


def print_study(folder: StudyFolder, as_json: bool) -> None:
    """Print a study's table and what to type next, or all of it as one JSON object."""
    from carray.reports.study import study_json, study_lines

    emit(folder, study_lines, as_json, study_json)
