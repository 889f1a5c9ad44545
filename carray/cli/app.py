"""The typer app: registers the commands, whose heavy imports are inside them."""

from __future__ import annotations

import re
from inspect import cleandoc
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from carray.cli import (
    ablation,
    analysis,
    data,
    demo,
    distill,
    doctor,
    ensemble,
    evaluate,
    folds,
    look,
    pictures,
    portfolio,
    serving,
    space,
    submit,
    trial,
    tune,
    ui,
)

GUESSES = {
    "resume": "`carray tune` with the arguments of before goes on where it stopped",
    "continue": "`carray tune` with the arguments of before goes on where it stopped",
    **dict.fromkeys(
        ("stop", "pause", "kill"),
        "Ctrl-C ends `carray tune`, and the same command goes on; `carray status` says how far",
    ),
    "logs": "`carray show STUDY/NUMBER` has a trial's epochs, `carray report` a study's table",
    "search": "`carray tune DIR`",
    "sweep": "`carray tune DIR`",
    "optimize": "`carray tune DIR`",
    "runs": "`carray list`",
    "info": "`carray show` with the name of a study, a trial or a model",
    "help": "`carray --help`, or `--help` after a command",
    "version": "`carray --version`",
    "fit": "`carray train DIR`",
    "models": "`carray list`",
    "studies": "`carray list`",
    "ls": "`carray list`",
    "trials": "`carray leaderboard`, or `carray report`",
    "run": "`carray tune DIR` searches, `carray train DIR` trains one configuration",
    "eval": "`carray evaluate MODEL`",
    "mlflow": "`carray ui`",
    "tensorboard": "`carray ui` opens MLflow's screens",
    "dashboard": "`carray ui` opens MLflow's screens",
    "delete": "a study is its folder, runs/studies/STUDY, a model runs/models/NAME: remove that",
    "rm": "a study is its folder, runs/studies/STUDY, a model runs/models/NAME: remove that",
    "best": "`carray leaderboard --top 1`",
    "prepare": "`carray data prepare SOURCE --out DIR`",
    "check": "`carray doctor` looks a machine or a cluster over, `carray space check FILE` a space",
    "test": "`carray evaluate MODEL --split test` judges a model, `carray compare` several",
}


class _Commands(TyperGroup):
    """Answers what people guess with the command that does it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name in GUESSES and self.get_command(ctx, name) is None:
            ctx.fail(f"there is no command {name!r}: {GUESSES[name]}")
        return super().resolve_command(ctx, args)


def _spread(args: list[str], options: tuple[str, ...], pattern: str) -> list[str]:
    """Repeat an option before each further word that may be its value: `--fold 0 1 2`."""
    spread: list[str] = []
    option = ""
    for word in args:
        if option and spread[-1] != option and re.fullmatch(pattern, word):
            spread.append(option)
        elif word.startswith("-"):
            option = word if word in options else ""
        spread.append(word)
    return spread


class _OnFolds(TyperCommand):
    """Takes several numbers after one `--fold`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _spread(args, ("--fold",), r"\d+"))


class _OfBackbones(TyperCommand):
    """Takes several names after one `--backbones`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _spread(args, ("--backbones",), r"[^-].*"))


class _OfAStudy(TyperCommand):
    """Takes the study's name without `--study` too, as `carray show` does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = _with_url(args)
        is_bare = bool(args) and not args[0].startswith("-")
        return super().parse_args(ctx, ["--study", *args] if is_bare else args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[STUDY]", *super().collect_usage_pieces(ctx)]


class _OfStudies(_OfAStudy):
    """Takes the names of several studies, after one `--studies` or without it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_bare = bool(args) and not args[0].startswith("-")
        named = ["--study", *args] if is_bare else args
        return super().parse_args(ctx, _spread(named, ("--study", "--studies"), r"[^-].*"))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[STUDY...]", *super().collect_usage_pieces(ctx)[1:]]


def _with_url(args: list[str]) -> list[str]:
    """Let a URL follow `--from-tracking`, which is a flag otherwise."""
    after = args.index("--from-tracking") + 1 if "--from-tracking" in args else len(args)
    has_url = after < len(args) and "://" in args[after]
    return [*args[:after], "--tracking", *args[after:]] if has_url else args


app = typer.Typer(
    name="carray",
    cls=_Commands,
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


SEARCH, LOOK, MODELS, MORE = "Search and train", "Look", "Models", "More"

app.command(rich_help_panel=SEARCH)(demo.demo)
app.add_typer(data.app, name="data", rich_help_panel=SEARCH)
app.add_typer(space.app, name="space", rich_help_panel=SEARCH)
app.command(cls=_OnFolds, rich_help_panel=SEARCH)(tune.tune)
app.command(
    rich_help_panel=SEARCH,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)(submit.submit)
app.command(rich_help_panel=SEARCH)(trial.train)
app.command(rich_help_panel=SEARCH)(trial.sanity)
app.command(cls=_OfBackbones, rich_help_panel=SEARCH)(portfolio.probe)
app.command("list", rich_help_panel=LOOK)(look.list_)
app.command(cls=_OfAStudy, rich_help_panel=LOOK)(look.status)
app.command(rich_help_panel=LOOK)(look.show)
app.command(cls=_OfAStudy, rich_help_panel=LOOK)(look.leaderboard)
app.command(cls=_OfAStudy, rich_help_panel=LOOK)(look.experiments)
app.command(cls=_OfAStudy, rich_help_panel=LOOK)(ensemble.report)
app.command(rich_help_panel=LOOK)(ui.ui)
app.command(rich_help_panel=LOOK)(analysis.compare)
app.command(rich_help_panel=LOOK)(pictures.confusion)
app.command(rich_help_panel=LOOK)(analysis.errors)
app.command(rich_help_panel=LOOK)(pictures.explain)
app.command(cls=_OfStudies, rich_help_panel=MODELS)(ensemble.ensemble)
app.command(cls=_OfAStudy, rich_help_panel=MODELS)(folds.soup)
app.command(rich_help_panel=MODELS)(distill.distill)
app.command(rich_help_panel=MODELS)(ensemble.predict)
app.command(rich_help_panel=MODELS)(serving.export)
app.command(rich_help_panel=MODELS)(evaluate.evaluate)
app.command(rich_help_panel=MODELS)(serving.serve)
app.command(rich_help_panel=MODELS)(serving.bench)
app.command(rich_help_panel=MODELS)(serving.calibrate)
app.command(cls=_OfAStudy, rich_help_panel=MODELS)(folds.folds)
app.command(rich_help_panel=MODELS)(analysis.features)
app.command("add-class", rich_help_panel=MODELS)(analysis.add_class)
app.command(rich_help_panel=MORE)(doctor.doctor)
app.command(rich_help_panel=MORE)(trial.replay)
app.command(cls=_OfAStudy, rich_help_panel=MORE)(ui.sync)
app.command(rich_help_panel=MORE)(ablation.ladder)
app.command("replay-lab", rich_help_panel=MORE)(portfolio.replay_lab)
app.command(rich_help_panel=MORE)(portfolio.portfolio)


def unwrap_docstring(doc: str) -> str:
    """Return a docstring whose paragraphs flow to the terminal's width; examples stay indented."""
    paragraphs = cleandoc(doc).split("\n\n")
    indents = ["[dim]  [/]" if each.startswith(" ") else "" for each in paragraphs]
    lines = [" ".join(each.split()) for each in paragraphs]
    return "\n\n".join(indent + line for indent, line in zip(indents, lines, strict=True))


for registered in (app, space.app, data.app):
    for command in registered.registered_commands:
        command.help = unwrap_docstring(getattr(command.callback, "__doc__", ""))
