"""The command tree; each group is a module beside this one, heavy imports inside the commands."""

from __future__ import annotations

from inspect import cleandoc
from typing import Annotated

import typer

from carray.cli import (
    ablation,
    analysis,
    data,
    demo,
    ensemble,
    folds,
    pictures,
    portfolio,
    sanity,
    space,
    trial,
    tune,
    ui,
)

app = typer.Typer(
    name="carray",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Search backbones and recipes on a GPU cluster, and ensemble what every trial learned.",
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"carray {version('carray')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None: ...


app.add_typer(space.app, name="space")
app.add_typer(data.app, name="data")
app.command()(demo.demo)
app.command()(tune.tune)
app.command()(trial.train)
app.command()(trial.replay)
app.command()(sanity.sanity)
app.command()(ensemble.ensemble)
app.command()(ensemble.predict)
app.command()(ensemble.report)
app.command()(folds.folds)
app.command()(analysis.compare)
app.command()(analysis.errors)
app.command()(analysis.features)
app.command("add-class")(analysis.add_class)
app.command()(pictures.confusion)
app.command()(pictures.explain)
app.command()(ui.ui)
app.command()(ui.sync)
app.command("replay-lab")(portfolio.replay_lab)
app.command()(portfolio.portfolio)
app.command()(ablation.ladder)


def unwrap_docstring(doc: str) -> str:
    """Return a docstring whose paragraphs flow to the terminal's width; examples stay indented."""
    paragraphs = cleandoc(doc).split("\n\n")
    indents = ["[dim]  [/]" if each.startswith(" ") else "" for each in paragraphs]
    lines = [" ".join(each.split()) for each in paragraphs]
    return "\n\n".join(indent + line for indent, line in zip(indents, lines, strict=True))


for registered in (app, space.app, data.app):
    for command in registered.registered_commands:
        command.help = unwrap_docstring(getattr(command.callback, "__doc__", ""))
