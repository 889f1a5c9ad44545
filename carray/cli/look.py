"""`carray list`, `status`, `show`, `leaderboard`, `experiments`: what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carray.cli.shared import JsonOption, RunsOption, StudyOption, emit
from carray.errors import counted


def list_(runs: RunsOption = None, as_json: JsonOption = False) -> None:
    """List the studies and models under the runs folder, the newest first.

    [dim]Examples:[/]

      carray list

      carray list --json
    """
    from carray.reports.listing import list_all, list_lines
    from carray.runs_folder import RunsFolder

    emit(RunsFolder.at(runs), list_lines, as_json, list_all)


def status(study: StudyOption = None, runs: RunsOption = None, as_json: JsonOption = False) -> None:
    """Say how a study stands: running or not, its trials by state, the best so far.

    [dim]Examples:[/]

      carray status

      carray status autumn
    """
    from carray.reports.listing import status_lines
    from carray.reports.study import study_json
    from carray.runs_folder import RunsFolder

    emit(RunsFolder.at(runs).find_study(study), status_lines, as_json, study_json)


def show(
    name: Annotated[
        str, typer.Argument(help="A study, a trial (STUDY/NUMBER), a model, or a backbone.")
    ],
    size: Annotated[
        int | None, typer.Option(help="Side of a backbone's images, in pixels.")
    ] = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a study, a trial or a model: what it is made of and what it is worth.

    Of a backbone: its layers, parameters and multiply-adds.

    [dim]Examples:[/]

      carray show autumn

      carray show autumn/0017

      carray show autumn-top3

      carray show resnet50 --size 256
    """
    from carray.reports.listing import find_shown, shown_json, shown_lines
    from carray.runs_folder import RunsFolder

    folder = RunsFolder.at(runs)
    found = find_shown(folder, name, size)
    emit(found, lambda found: shown_lines(folder, found), as_json, shown_json)


def leaderboard(
    study: StudyOption = None,
    top: Annotated[int, typer.Option(min=1, help="Trials at most.")] = 20,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank a study's trials by its metric, each with what was drawn for it.

    [dim]Examples:[/]

      carray leaderboard autumn --top 5
    """
    from carray.reports.listing import leaderboard as frame_of
    from carray.reports.listing import leaderboard_lines
    from carray.runs_folder import RunsFolder

    emit(
        RunsFolder.at(runs).find_study(study),
        lambda folder: leaderboard_lines(folder, top),
        as_json,
        lambda folder: frame_of(folder).head(top).to_dict("records"),
    )


def experiments(
    study: StudyOption = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="text, csv or markdown; default: as --out ends, else text."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write it to a file (.csv, .md, .txt), not to the screen.")
    ] = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the table of experiments: cost, overfitting, and what each change brought.

    Each trial is held against the earlier one whose configuration is nearest, image by image.

    [dim]Examples:[/]

      carray experiments autumn

      carray experiments autumn --out experiments.md

      carray experiments single --format csv
    """
    from carray.analysis.experiments import experiments_of
    from carray.files import write_text
    from carray.reports.experiments import FORMATS, format_of
    from carray.runs_folder import RunsFolder

    lines_of = FORMATS[format_of(form, out)]
    found = experiments_of(RunsFolder.at(runs).find_study(study))
    if out is not None:
        write_text(out, "\n".join(lines_of(found)) + "\n")
        print(f"{counted(len(found.rows), 'experiment')}: {out}")
        return
    emit(found, lines_of, as_json)
