"""`carray space`: check a search space, draw from it, list those there are."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carray.cli.shared import emit, say
from carray.errors import ConfigError, counted

if TYPE_CHECKING:
    from carray.search.space.space import SearchSpace

app = typer.Typer(no_args_is_help=True, help="Check a search space, draw from it, list them.")

FileArgument = Annotated[
    str, typer.Argument(help="A YAML file, or the name of a shipped space: quick, backbones.")
]


@app.command()
def check(
    file: FileArgument,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Check a space whole: names, every end of every range, every choice, starting points."""
    from carray.search.space.loading import load_space
    from carray.search.space.validation import check_against_timm

    space = load_space(file)
    try:
        check_against_timm(space)
    except ConfigError as error:
        raise ConfigError(f"{space.name}: {error}") from None
    emit(space, _summary_lines, as_json, _summary)


@app.command()
def sample(
    file: FileArgument,
    number: Annotated[int, typer.Option("-n", min=1, help="How many trials.")] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Params and whole configs.")] = False,
) -> None:
    """Draw trials at random, as a study's first ones are drawn; nothing is trained."""
    from carray.search.space.loading import load_space

    space = load_space(file)
    emit(
        space.sample(number, seed),
        lambda drawn: [
            line for at, params in enumerate(drawn) for line in _trial_lines(at, space, params)
        ],
        as_json,
        lambda drawn: [{"params": p, "config": space.resolve(p).model_dump()} for p in drawn],
    )


@app.command("list")
def list_spaces() -> None:
    """List the spaces that can be named without a path."""
    from carray.search.space.loading import load_space, shipped_spaces

    files = shipped_spaces()
    width = max(len(file.stem) for file in files)

    def text(file: Path) -> str:
        question = load_space(file).question.removeprefix("Question: ")
        return _wrapped(f"{file.stem:<{width}}  ", question)

    say(lambda: map(text, files))


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option(help="Write here; else it is printed.")] = None,
) -> None:
    """Print the JSON Schema by which an editor completes a space's file."""
    from carray.files import write_text
    from carray.search.space.json_schema import space_schema

    text = json.dumps(space_schema(), indent=1)
    if out is None:
        print(text)
    else:
        write_text(out, text + "\n")


def _summary(space: SearchSpace) -> dict[str, Any]:
    return {
        "name": space.name,
        "question": space.question,
        "metric": space.metric,
        "direction": space.direction,
        "backbones": list(space.backbones()),
        "drawn": sorted(space.distributions),
        "starts": len(space.starts),
        "refit": dict(space.refit),
        "hash": space.hash,
    }


def _summary_lines(space: SearchSpace) -> list[str]:
    own = sum(len(block.search) for block in space.blocks.values())
    counts = (
        f"drawn for every trial: {len(space.shared.search)}; in "
        f"{counted(len(space.blocks), 'backbone block')}: {own}; "
        f"starting points: {len(space.starts)}"
    )
    return [
        f"{space.name} is valid, hash {space.hash}",
        *([_wrapped("", space.question)] if space.question else []),
        f"{space.direction} {space.metric}",
        counts,
        _wrapped("backbones: ", ", ".join(space.backbones())),
        *([_values_text("refits change: ", space.refit)] if space.refit else []),
    ]


def _trial_lines(index: int, space: SearchSpace, params: dict[str, Any]) -> list[str]:
    from carray.search.space.space import BLOCK

    dotted = space.dotted(params)
    block = dotted.pop(BLOCK, None)
    backbone = space.resolve(params).backbone
    title = backbone if block in (None, backbone) else f"{block}  {backbone}"
    body = _values_text("   ", dotted) if dotted else "   nothing drawn"
    return [f"{index}  {title}", body]


def _values_text(lead: str, values: Mapping[str, Any]) -> str:
    from carray.reports.table import value_text

    cells = [f"{name} {value_text(value)}".replace(" ", "\0") for name, value in values.items()]
    return _wrapped(lead, "   ".join(cells)).replace("\0", " ")


def _wrapped(lead: str, text: str) -> str:
    from carray.reports.table import line_width

    return textwrap.fill(
        text,
        line_width(),
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_long_words=False,
        break_on_hyphens=False,
    )
