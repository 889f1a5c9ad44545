"""`carray tune`: a study from the command line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, cast

import typer

from carray.cli.shared import (
    NewStudyOption,
    RunsOption,
    SetOption,
    WeightsOption,
    check_data,
    command_line,
    emit,
    parse_sets,
    print_study,
)

if TYPE_CHECKING:
    from carray.search.request import Goal

PLACE = "Placement"
SEARCH = "Search"


def tune(
    data: Annotated[
        str, typer.Argument(help="A prepared data set (`carray data prepare`): its folder or URL.")
    ],
    space: Annotated[
        str | None,
        typer.Option(help="A YAML file, or a shipped space's name; default: what suits the data."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Trials in all, earlier calls' included.")
    ] = None,
    study: NewStudyOption = None,
    max_epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of a full trial, in place of the space's; more than a complete study had "
            "continue its best trials."
        ),
    ] = None,
    refit: Annotated[
        int | None,
        typer.Option(
            help="Train the best K again, longer; default: none, of a budget all that fit."
        ),
    ] = None,
    refit_epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs of a refit; default: twice a trial's, within a budget up to 4 times."
        ),
    ] = None,
    folds: Annotated[
        int, typer.Option(help="Train the best on every fold too; as many as the data have.")
    ] = 0,
    top_folds: Annotated[int, typer.Option(help="How many of the best are trained on folds.")] = 1,
    fold: Annotated[
        list[int] | None, typer.Option(help="Train the best on these folds alone: --fold 0 1 2.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="What this call may spend, refits included: 25min, 1h30, 40gpuh, 60eur."),
    ] = None,
    price: Annotated[
        str | None, typer.Option(help="Of an hour of a device: 2.5eur/gpuh, 0.04eur/cpuh.")
    ] = None,
    time_budget: Annotated[
        float | None, typer.Option(help="Minutes: --budget 25min as it was called before.")
    ] = None,
    set_: SetOption = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="tpe, tpe-univariate, tpe-local, random, qmc, gp, cmaes, nsga2.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            help="A metric, then what networks cost: val/log_loss,latency (or size). Draws for "
            "the front; stops trials by the metric.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    goal: Annotated[
        str,
        typer.Option(
            help="Draw for the ensemble of all trials, or for the best single one.",
            rich_help_panel=SEARCH,
        ),
    ] = "ensemble",
    stop_when_gain_below: Annotated[
        float | None,
        typer.Option(
            help="Open no more trials once the next five are expected to lower the ensemble's "
            "log-loss by less.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="asha, median, hyperband, none.", rich_help_panel=SEARCH),
    ] = None,
    grace_epochs: Annotated[
        int | None,
        typer.Option(
            help="Epochs every trial gets; default: a tenth, at least 5, all of fewer than 15; "
            "hopeless ones end after a quarter.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    reduction_factor: Annotated[
        int, typer.Option(help="One in so many goes past a rung.", rich_help_panel=SEARCH)
    ] = 3,
    start_from: Annotated[
        list[str] | None,
        typer.Option(
            help="A study or portfolio whose recipes are tried first; or none. May be repeated.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The study's seed.", rich_help_panel=SEARCH)] = 0,
    storage: Annotated[
        str | None,
        typer.Option(
            help="Optuna's storage, postgresql://USER@HOST/DB; default: $CARRAY_STORAGE, a file.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    concurrent: Annotated[
        int | None,
        typer.Option(
            "--concurrent",
            "--lanes",
            help="Trials at once, a lane each; default: all that fit.",
            rich_help_panel=PLACE,
        ),
    ] = None,
    min_lanes: Annotated[
        int | None,
        typer.Option(
            help="Begin with so many; add others up to --lanes as nodes join, which Ray's "
            "autoscaler is asked for.",
            rich_help_panel=PLACE,
        ),
    ] = None,
    workers_per_trial: Annotated[
        int, typer.Option(help="DDP ranks of a trial.", rich_help_panel=PLACE)
    ] = 1,
    gpus_per_trial: Annotated[
        str | None,
        typer.Option(
            help="Of all its ranks; a share packs trials, auto by memory.", rich_help_panel=PLACE
        ),
    ] = None,
    accelerator: Annotated[
        str | None,
        typer.Option(
            help="Only nodes with this GPU, as Ray names it: H100, A100, L4.",
            rich_help_panel=PLACE,
        ),
    ] = None,
    cpus_per_worker: Annotated[
        float | None, typer.Option(help="CPUs of one rank.", rich_help_panel=PLACE)
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster's; default: this machine.", rich_help_panel=PLACE),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            help="A variable of this shell that ranks get too; may be repeated.",
            rich_help_panel=PLACE,
        ),
    ] = None,
    place_timeout: Annotated[
        float, typer.Option(help="Seconds to wait for the first lane.", rich_help_panel=PLACE)
    ] = 300.0,
    preflight: Annotated[
        bool, typer.Option("--preflight", help="First overfit 32 images with each backbone.")
    ] = False,
    disk_budget: Annotated[
        float, typer.Option(help="GiB of weights that all studies may keep.")
    ] = 50.0,
    weights: WeightsOption = None,
    pictures: Annotated[
        bool,
        typer.Option("--pictures/--no-pictures", help="Draw the best trial's confusion matrix."),
    ] = True,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say the plan, the first trials and the time; run nothing."),
    ] = False,
    runs: RunsOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, a line an event, then the study's trials.")
    ] = False,
) -> None:
    """Search a space on every GPU there is; keep what every trial learned.

    The same command again goes on where it stopped or its budget ended; with more --trials it
    extends the study. Exit code 1 where no trial has got through an epoch, 3 where the cluster
    ended it.

    [dim]Examples:[/]

      carray tune cars --budget 2h

      carray tune cars --space backbones --trials 30 --refit 3

      carray tune cars --space my.yaml --budget 45min --refit 2

      carray tune cars --space my.yaml --folds 3 --top-folds 3

      carray tune cars --space my.yaml --objectives val/log_loss,latency

      carray tune cars --space my.yaml --set image_size=160 --workers-per-trial 2
    """
    called_at = time.monotonic()  # what follows takes seconds
    from carray import api
    from carray.search.placement.plan import gpus_asked
    from carray.search.request import StudyRequest, check_numbers
    from carray.search.space.loading import find_space

    check_data(data)
    if space is not None:
        find_space(space)

    request = StudyRequest(
        data=data,
        space=space,
        trials=trials,
        name=study,
        runs=runs,
        max_epochs=max_epochs,
        concurrent=concurrent,
        min_lanes=min_lanes,
        workers_per_trial=workers_per_trial,
        gpus_per_trial=gpus_asked(gpus_per_trial),
        accelerator=accelerator,
        cpus_per_worker=cpus_per_worker,
        sampler=sampler,
        objectives=tuple(name.strip() for name in objectives.split(",")) if objectives else (),
        goal=cast("Goal", goal),  # an unknown one is refused with all the others
        stop_when_gain_below=stop_when_gain_below,
        scheduler=scheduler,
        grace_epochs=grace_epochs,
        reduction_factor=reduction_factor,
        budget=budget,
        called_at=called_at,
        price=price,
        command=command_line(),
        time_budget_seconds=None if time_budget is None else time_budget * 60,
        refit=refit,
        refit_epochs=refit_epochs,
        folds=folds,
        top_folds=top_folds,
        fold=tuple(fold or ()),
        address=address,
        seed=seed,
        start_from=tuple(start_from or ()),
        overrides=parse_sets(set_ or []),
        disk_budget_gib=disk_budget,
        storage=storage,
        env=tuple(env or ()),
        place_timeout_seconds=place_timeout,
        preflight=preflight,
        weights=weights,
    )
    check_numbers(request)
    if dry_run:
        from carray.search.dry_run import DryRun
        from carray.search.dry_run import dry_run as dry

        emit(dry(request), DryRun.lines, as_json)
        return

    done = api.run_request(request, as_json=as_json, pictures=pictures)
    if not as_json:
        print(f"study: {done.where}")
    print_study(done.folder, as_json)
    if not any(record.epochs for record in done.trials):
        raise typer.Exit(1)
