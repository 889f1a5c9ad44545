"""`carray probe`, `replay-lab` and `portfolio`: learn beforehand how to run the next study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carray.cli.shared import (
    DataArgument,
    JsonOption,
    RunsOption,
    WeightsOption,
    check_data,
    check_studies,
    emit,
    renamed,
    told_if_interrupted,
)
from carray.errors import counted


def replay_lab(
    studies: Annotated[
        list[str] | None, typer.Argument(help="Studies; default: the newest.")
    ] = None,
    lcbench: Annotated[
        Path | None, typer.Option(help="LCBench's surrogate: its folder; needs onnxruntime.")
    ] = None,
    data_sets: Annotated[int, typer.Option(min=1, help="How many of LCBench's 34.")] = 12,
    metric: Annotated[
        str, typer.Option(help="LCBench's: val/log_loss or val/top1.")
    ] = "val/log_loss",
    seeds: Annotated[
        int, typer.Option(min=1, help="Replays of each method on each data set.")
    ] = 20,
    trainings: Annotated[
        int, typer.Option(min=1, help="Full ones of random search; others get half.")
    ] = 40,
    budget: Annotated[
        int | None,
        typer.Option("--budget", min=1, hidden=True, help="What --trainings was called."),
    ] = None,
    lanes: Annotated[int, typer.Option(min=1, help="Trials at once.")] = 4,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Replays side by side; default: one a CPU.")
    ] = None,
    ensembles: Annotated[
        bool,
        typer.Option(
            "--ensembles",
            help="Judge samplers by the ensemble of what they draw, from studies' logits.",
        ),
    ] = False,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay recorded learning curves through samplers and schedulers; propose the next study's.

    Nothing is trained. A draw in a study's own space gets the recorded curve of the nearest trial;
    curves of stopped trials are continued as full ones went on. With several data sets, starting
    points learned from the others are tried too. Studies of one data set are one pool to
    --ensembles, which wants twenty complete trials of each.

    [dim]Examples:[/]

      carray replay-lab cars-quick cars-backbones

      carray replay-lab --lcbench lcbench --seeds 5 --data-sets 6

      carray replay-lab cars-a cars-b cars-seeds --ensembles
    """
    trainings = renamed("--budget", budget, "--trainings", trainings)
    newest = () if lcbench else (None,)
    check_studies(runs, *(studies or newest))
    from carray.data.parallel import num_workers
    from carray.progress import progress
    from carray.reports.search_benchmark import benchmark_lines, ensemble_lines
    from carray.search_benchmark.ensembles import benchmark_ensembles
    from carray.search_benchmark.methods import BenchmarkRequest
    from carray.search_benchmark.run import run_benchmark

    request = BenchmarkRequest(
        studies=studies or (),
        lcbench=lcbench,
        data_sets=data_sets,
        metric=metric,
        seeds=seeds,
        budget=trainings,
        lanes=lanes,
        processes=num_workers() if processes is None else processes,
        runs=runs,
    )
    if ensembles:
        emit(benchmark_ensembles(request, progress), ensemble_lines, as_json)
    else:
        emit(run_benchmark(request, progress), benchmark_lines, as_json)


def portfolio(
    studies: Annotated[list[str], typer.Argument(help="Studies to learn from.")],
    out: Annotated[Path | None, typer.Option(help="Write here; else it is printed.")] = None,
    recipes: Annotated[int, typer.Option(help="So many at most.")] = 6,
    size: Annotated[
        int | None, typer.Option("--size", hidden=True, help="What --recipes was called.")
    ] = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Distill past studies into a few recipes that the next study tries first.

    [dim]Example:[/] carray portfolio cars-a cars-b --out mine.yaml, then
    carray tune cars --start-from mine.yaml
    """
    from carray.search.warm_start.portfolio import portfolio_of_studies

    made = portfolio_of_studies(studies, renamed("--size", size, "--recipes", recipes), runs)
    if out is not None:
        made.write(out)
    if as_json:
        print(made.model_dump_json())
    elif out is None:
        print(made.text(), end="")
    else:
        points = counted(len(made.points), "recipe")
        print(f"{points} of {counted(len(made.made_from), 'study', 'studies')}: {out}")


def probe(
    data: DataArgument,
    backbones: Annotated[
        list[str] | None,
        typer.Option(
            help="Candidates, timm's names, several after one --backbones; default: the space's."
        ),
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="A search space, for its backbones and image size.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Pixels of a side; default: the space's, else 224.")
    ] = None,
    weights: WeightsOption = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank backbones by a linear probe on their frozen features, in minutes, before a search.

    Features are stored beside the data, for the next probe and for trials that train a head alone.
    Says how well the ranking foretells fine-tuning, as far as recorded studies know. `carray tune`
    tries its starting points in the order that was found last.

    [dim]Examples:[/]

      carray probe cars --backbones resnet50 convnext_tiny --size 128

      carray probe cars --space backbones
    """
    check_data(data)
    from carray.analysis.probe import probe as rank
    from carray.progress import progress
    from carray.reports.probe import probe_lines

    with told_if_interrupted("features that are done are kept; the same command goes on"):
        found = rank(
            data,
            backbones or (),
            space=space,
            image_size=size,
            runs=runs,
            weights=weights,
            progress=progress,
        )
    emit(found, probe_lines, as_json)
