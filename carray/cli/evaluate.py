"""`carray evaluate`: a model class by class, on a held split or on new labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carray.cli.shared import (
    JsonOption,
    LabelPartsOption,
    ModelArgument,
    RunsOption,
    check_models,
    emit,
)


def evaluate(
    model: ModelArgument,
    images: Annotated[
        Path | None,
        typer.Argument(
            help="New labelled images: a folder of class folders, a table, or a data folder; "
            "default: the model's own data.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="val, blend or test, whose look is recorded; default: val, or all new."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("evaluation"),
    all_classes: Annotated[bool, typer.Option("--all", help="Print every class.")] = False,
    label_parts: LabelPartsOption = "auto",
    label_column: Annotated[
        str | None, typer.Option(help="A table's column of classes, or several: make,model.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a model: precision, recall and F1 of each class, by make, model and year, calibration.

    On a split of its study it needs no image: the logits that trials left are enough. Writes
    per_class.csv and a reliability diagram.

    [dim]Examples:[/]

      carray evaluate autumn/0007

      carray evaluate autumn-top3 --split test

      carray evaluate autumn-top3 new-photos/ --out new

      carray evaluate autumn-top3 --label-parts '{make} {model} {year}'
    """
    check_models(runs, model)
    from carray.analysis.evaluation import evaluate as judge
    from carray.progress import progress
    from carray.reports.evaluation import evaluation_lines, write_evaluation

    found = judge(
        model,
        images,
        split=split,
        label_parts=label_parts,
        label_column=label_column,
        runs=runs,
        seed=seed,
        progress=progress,
    )
    emit(write_evaluation(found, out), lambda found: evaluation_lines(found, all_classes), as_json)
