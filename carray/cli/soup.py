"""`carray soup`: the weights of several trials averaged into one model."""

from __future__ import annotations

from typing import Annotated

import typer

from carray.cli.shared import JsonOption, RunsOption, StudyOption, emit


def soup(
    study: StudyOption = None,
    top: Annotated[
        int, typer.Option(min=2, help="How many of the best trials are averaged at most.")
    ] = 8,
    name: Annotated[
        str | None, typer.Option(help="The model package's name; default: STUDY-soup.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="Ranks trials and soups on val; default: the study's own."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of folds and bootstrap.")] = 0,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Average the weights of a study's best trials: an ensemble at the cost of one model.

    Trials must share backbone, head and pretrained weights. Where the log-loss rises between two,
    they are parted by a barrier, and left out. The uniform or the greedy soup, whichever is better
    on val, is compared on blend with the best trial and the soft vote, and packaged.

    [dim]Examples:[/]

      carray soup

      carray soup autumn --top 5 --name autumn-one

      carray ensemble --studies autumn autumn-soup
    """
    from carray.ensemble.soup import make_soup
    from carray.progress import progress
    from carray.reports.soup import soup_lines

    made = make_soup(
        study, top=top, runs=runs, name=name, metric=metric, seed=seed, progress=progress
    )
    emit(made, soup_lines, as_json)
