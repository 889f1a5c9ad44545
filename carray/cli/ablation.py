"""`carray ladder`: which changes of a recipe help."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from carray.cli.shared import (
    DataArgument,
    JsonOption,
    NewStudyOption,
    RunsOption,
    SetOption,
    WeightsOption,
    check_data,
    emit,
    parse_sets,
    say,
)

if TYPE_CHECKING:
    from carray.analysis.ablation_step import AblationStep


def ladder(
    data: DataArgument,
    space: Annotated[
        str, typer.Option(help="A space whose starting points are the steps.")
    ] = "logloss_ladder",
    seeds: Annotated[int, typer.Option(min=3, help="Of the anchor: they give the noise.")] = 3,
    step_seeds: Annotated[int, typer.Option(min=1, help="Of every other step.")] = 1,
    keep: Annotated[
        str, typer.Option(help="What the next step builds on: better steps, all, or none.")
    ] = "better",
    study: NewStudyOption = None,
    set_: SetOption = None,
    max_epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of every step, in place of the space's.")
    ] = None,
    tta: Annotated[
        str | None, typer.Option(help="Views as a last step, judged on blend; see `ensemble`.")
    ] = None,
    folds: Annotated[
        int, typer.Option(min=0, help="Folds of what stands as the last step, judged on blend.")
    ] = 0,
    weights: WeightsOption = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Climb one factor at a time; each step is better, worse, or within the noise of seeds.

    The same command goes on where it stopped: trials that are complete are not trained again.

    [dim]Examples:[/]

      carray ladder cars --tta auto --folds 5

      carray ladder cars --space my_ladder.yaml --seeds 5 --keep all
    """
    check_data(data)
    from carray.analysis.ablation import run_ablation
    from carray.cli.trial import EpochLines
    from carray.progress import progress
    from carray.reports.ablation import ablation_lines, head_lines, step_line
    from carray.reports.hints import runs_option

    fixed = parse_sets(set_ or []) | ({"epochs": max_epochs} if max_epochs else {})
    head = iter([] if as_json else [head_lines])  # said once the arguments are found good

    def show(step: AblationStep) -> None:
        for lines in head:
            say(lines)
        if not as_json:
            say(lambda: [step_line(step)])

    found = run_ablation(
        data,
        space,
        seeds=seeds,
        step_seeds=step_seeds,
        keep=keep,  # type: ignore[arg-type]  # checked where it is used
        study=study,
        overrides=fixed,
        tta=tta,
        folds=folds,
        weights=weights,
        runs=runs,
        on_step=show,
        on_epoch=EpochLines(on_stderr=True).show,
        progress=progress,
    )
    stands = next(step.trials[0] for step in reversed(found.steps) if step.stays)
    hint = f"next: carray show {quote(stands)}{runs_option(runs)}"
    emit(found, lambda found: ["", *ablation_lines(found), "", hint], as_json)
