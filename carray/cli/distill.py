"""`carray distill`: one small network that learns what an ensemble answers."""

from __future__ import annotations

from typing import Annotated

import typer

from carray.cli.serving import MovedDataOption
from carray.cli.shared import (
    JsonOption,
    ModelArgument,
    RunsOption,
    SetOption,
    WeightsOption,
    check_models,
    emit,
    parse_sets,
)


def distill(
    model: ModelArgument,
    into: Annotated[
        str,
        typer.Option(
            help="The student's backbone, any of timm's or ours; or STUDY/NUMBER, a trial whose "
            "configuration it takes."
        ),
    ],
    seeds: Annotated[
        int, typer.Option(min=1, help="Students, and as many networks on labels alone.")
    ] = 1,
    set_: SetOption = None,
    name: Annotated[
        str | None, typer.Option(help="The model package's name; default: MODEL-BACKBONE.")
    ] = None,
    data: MovedDataOption = None,
    weights: WeightsOption = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one small network on an ensemble's answers, and package it with what it is worth.

    In each step the teacher sees the very images that the student sees, augmented and mixed. The
    same network is also trained on labels alone, for as many epochs; the three are compared on
    blend. Image size and epochs are the teacher's unless --set says otherwise; more epochs than
    usual, and --set augment.mixup=0.5, teach more. The same command goes on where it stopped.

    A space with `distill.teacher` fixed searches for a student by `carray tune`, its weight and
    temperature too; --into STUDY/NUMBER then trains what was found, and packages it with the table.

    [dim]Examples:[/]

      carray distill autumn-top3 --into mobilenetv4_conv_small

      carray distill autumn-top3 --into mobilenetv3_small_100 --seeds 3 --set epochs=60

      carray distill autumn-top3 --into resnet18 --set distill.weight=0.7
      --set distill.temperature=2

      carray distill autumn-top3 --into students/0007 --seeds 3
    """
    check_models(runs, model)
    from carray.analysis.distillation import distill_model
    from carray.cli.trial import EpochLines
    from carray.progress import progress
    from carray.reports.distillation import distillation_lines

    found = distill_model(
        model,
        into,
        overrides=parse_sets(set_ or []),
        seeds=seeds,
        name=name,
        data=data,
        weights=weights,
        runs=runs,
        on_epoch=EpochLines(as_json).show,
        progress=progress,
    )
    emit(found, distillation_lines, as_json)
