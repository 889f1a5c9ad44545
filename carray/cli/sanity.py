"""`carray sanity`: overfit 32 images before a budget is spent."""

from __future__ import annotations

from typing import Annotated

import typer

from carray.cli.shared import DataArgument, JsonOption, SetOption, WeightsOption, emit, parse_sets


def sanity(
    data: DataArgument,
    set_: SetOption = None,
    images: Annotated[int, typer.Option(help="How many images to overfit, 4 a class.")] = 32,
    seconds: Annotated[float, typer.Option(help="When to give up.")] = 100.0,
    weights: WeightsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Overfit 32 training images with one configuration: pass or fail, and why.

    A net that can't learn 32 images by heart will not learn thousands. All regularisation is off;
    lr, optimizer, head and size are yours. Exit code 1 where it fails. Nothing is written.

    [dim]Examples:[/]

      carray sanity cars --set backbone=resnet18 --set optimizer.lr=3e-4

      carray sanity cars --set backbone=small_car_cnn --set pretrained=false --set image_size=96
    """
    from carray.progress import progress
    from carray.training.overfit_check import sanity as overfit

    verdict = overfit(
        data,
        parse_sets(set_ or []),
        weights=weights,
        images=images,
        seconds=seconds,
        progress=progress,
    )
    result = "pass" if verdict.passed else "FAIL"
    head = f"{result}: {verdict.backbone}, {verdict.images} images, {verdict.seconds:.0f} s"
    emit(verdict, lambda verdict: [head, verdict.reason], as_json)
    if not verdict.passed:
        raise typer.Exit(1)
