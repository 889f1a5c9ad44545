"""`carray folds`: one configuration on every fold, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from carray.cli.shared import JsonOption, RunsOption


def folds(
    study: Annotated[
        str | None, typer.Option(help="The study; default: the newest search.")
    ] = None,
    trial: Annotated[
        int | None, typer.Option(help="A trial of the configuration; default: the newest.")
    ] = None,
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Open the test split; it is recorded.")
    ] = True,
    name: Annotated[
        str | None, typer.Option(help="The model package's name; default: STUDY-folds.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the trials of `--folds` together: out-of-fold scores, curves, an ensemble of the folds.

    [dim]Examples:[/]

      carray folds --study single

      carray folds --study autumn --trial 17 --no-test
    """
    from carray.ensemble.folds import assemble_folds
    from carray.ensemble.folds_result import folds_lines
    from carray.records import RunsFolder
    from carray.reports.folds import folds_picture

    found = assemble_folds(study, trial=trial, runs=runs, open_test=test, name=name, seed=seed)
    folder = RunsFolder.at(runs).study(found.study)
    picture = folds_picture(folder, [row.trial for row in found.folds])
    if as_json:
        import json

        print(json.dumps({**found.as_dict(), "picture": str(picture)}, ensure_ascii=False))
        return
    print("\n".join([*folds_lines(found), f"curves: {picture}"]))
