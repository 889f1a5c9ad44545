"""`carray folds` and `carray soup`: trials that belong together, put together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from carray.cli.shared import (
    JsonOption,
    RunsOption,
    StudyOption,
    TestOption,
    check_studies,
    emit,
)

if TYPE_CHECKING:
    from carray.analysis.cross_validation import CrossValidation


def folds(
    study: StudyOption = None,
    trial: Annotated[
        int | None, typer.Option(help="A trial of the configuration; default: the newest.")
    ] = None,
    test: TestOption = True,
    name: Annotated[
        str | None, typer.Option(help="The model package's name; default: STUDY-folds.")
    ] = None,
    doubtful: Annotated[
        Path | None,
        typer.Option(
            help="Also write the training images whose label the folds doubt: a .csv file."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the trials of `--folds` together: out-of-fold scores, curves, an ensemble of the folds.

    What --doubtful writes can be given to `carray data prepare --exclude`, once looked at.

    [dim]Examples:[/]

      carray folds --study single

      carray folds --study autumn --trial 17 --no-test

      carray folds --study single --doubtful doubtful.csv
    """
    from carray.runs_folder import RunsFolder

    folder = RunsFolder.at(runs).find_study(study)  # before what is slow to import
    from carray.analysis.cross_validation import assemble_folds
    from carray.analysis.label_errors import write_label_issues
    from carray.drawing import drawn_or_none
    from carray.reports.analysis import cross_validation_lines
    from carray.reports.hints import predict_hint
    from carray.reports.pictures.cross_validation_plot import folds_picture

    found = assemble_folds(study, trial=trial, runs=runs, open_test=test, name=name, seed=seed)
    trials = [row.trial for row in found.folds]
    picture = drawn_or_none(lambda: folds_picture(folder, trials))
    doubts = write_label_issues(found, doubtful, runs=runs) if doubtful else None
    extra: dict[str, Any] = {"picture": picture}
    if doubts:
        extra |= {"doubtful": doubts.file, "doubtful_images": doubts.images}

    def lines(found: CrossValidation) -> list[str]:
        further = [f"curves: {picture}"] if picture else []
        if doubts:
            further.append(
                f"doubtful training labels: {doubts.images} of {doubts.of}, in {doubts.file}"
            )
            if 2 * doubts.images > doubts.of:
                further.append("that many mean that the folds' trials are too weak to judge labels")
        hints = [predict_hint(found.package)] if found.package else []
        return [*cross_validation_lines(found), *further, *(["next:", *hints] if hints else [])]

    emit(found, lines, as_json, lambda found: {**found.as_dict(), **extra})


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
    they are parted by a barrier, and left out; a search with `--set head.seed=0`, whose heads begin
    alike, has fewer of them, and a weaker ensemble. The uniform or the greedy soup, whichever is
    better on val, is compared on blend with the best trial and the soft vote, and packaged.

    [dim]Examples:[/]

      carray soup

      carray soup autumn --top 5 --name autumn-one

      carray ensemble --studies autumn autumn-soup
    """
    check_studies(runs, study)
    from carray.ensemble.soup import make_soup
    from carray.progress import progress
    from carray.reports.soup import soup_lines

    made = make_soup(
        study, top=top, runs=runs, name=name, metric=metric, seed=seed, progress=progress
    )
    emit(made, soup_lines, as_json)
