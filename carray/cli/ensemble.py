"""`carray ensemble`, `carray predict` and `carray report`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from carray.cli.shared import (
    JsonOption,
    LabelPartsOption,
    ModelArgument,
    RunsOption,
    StudyOption,
    TestOption,
    check_models,
    check_studies,
    emit,
    renamed,
)

if TYPE_CHECKING:
    from carray.predictions.network_costs import Device


def ensemble(
    study: Annotated[
        list[str] | None,
        typer.Option(
            "--study",
            "--studies",
            help="The study, or several on the same data: --studies A B; default: the newest "
            "search.",
        ),
    ] = None,
    top: Annotated[
        int,
        typer.Option(
            help="How many of the best trials vote, complete ones first; wide stacking has up to "
            "three times as many that are complete."
        ),
    ] = 3,
    folds: Annotated[
        bool,
        typer.Option(
            "--with-folds",
            help="Trials on folds join; the best --top configurations vote with all their folds.",
        ),
    ] = False,
    old_folds: Annotated[
        bool | None, typer.Option("--folds", hidden=True, help="What --with-folds was called.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="The model package's name; default: what it holds, as in STUDY-top3."),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Picks members on val, and the rule: val/log_loss, val/top1, val/macro_f1, ...; "
            "default: the study's own."
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            help="Soft vote, logit mean, hard vote, fitted weights, stacking, wide stacking, "
            "greedy selection or bagged selection; default: see above."
        ),
    ] = None,
    logits_only: Annotated[
        bool,
        typer.Option("--logits-only", help="Use trials without weights too; write no package."),
    ] = False,
    test: TestOption = True,
    from_tracking: Annotated[
        bool,
        typer.Option(
            "--from-tracking",
            help="Fetch the study from the tracking server first; its URL may follow.",
        ),
    ] = False,
    tracking: Annotated[
        str | None, typer.Option(help="That server's URL; default: the environment's.")
    ] = None,
    track: Annotated[
        bool, typer.Option("--track/--no-track", help="Log the model to MLflow.")
    ] = True,
    tta: Annotated[
        str | None,
        typer.Option(
            help="Views to measure, kept if they pay: auto, or, with commas between, flip, "
            "five_crop, ten_crop, three_scales, five_scales, rotation, colour, blur, perspective, "
            "random:N or random:N:AREA."
        ),
    ] = None,
    keep_best: Annotated[
        bool | None,
        typer.Option(
            "--keep-best/--no-keep-best",
            help="Package the best trial alone where the ensemble isn't shown to be better; "
            "default: where it is shown to be worse, unless --rule asks for it.",
            show_default=False,
        ),
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(help="Milliseconds that its networks may take for one image: 15ms."),
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(help="Megabytes that their weights may have: 200MB.")
    ] = None,
    on: Annotated[str, typer.Option(help="Where milliseconds are measured: cpu or cuda.")] = "cpu",
    pareto: Annotated[
        bool,
        typer.Option(
            "--pareto",
            help="Only show what each further millisecond brings, from one trial to all.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of folds and bootstrap.")] = 0,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Combine the best trials of one or several studies into one model, with an honest number.

    Members are the best by val; votes, means, fitted weights, stacking, greedy and bagged selection
    (which may use every trial, pruned ones too) are judged on blend; test is opened once, recorded.
    By log-loss wide stacking (of three times --top trials) is taken unless another rule is shown
    to be better there. --rule stacking or "soft vote" holds just the --top trials.

    [dim]Examples:[/]

      carray ensemble

      carray ensemble --study autumn --top 5 --name autumn-final

      carray ensemble --rule "soft vote"

      carray ensemble --tta auto

      carray ensemble --studies autumn winter --with-folds --top 3 --tta flip

      carray ensemble autumn --pareto

      carray ensemble autumn --max-latency 15ms --max-size 200MB

      carray ensemble --logits-only --no-test --json

      carray ensemble --study autumn --from-tracking http://HOST:5000 --runs fresh
    """
    folds = renamed("--folds", old_folds, "--with-folds", folds)
    import os

    if study and not from_tracking:
        check_studies(runs, *study)
    from carray.ensemble import build_ensemble
    from carray.ensemble.budget import checked_device
    from carray.progress import progress
    from carray.reports.ensemble import ensemble_lines

    if tracking:
        os.environ["MLFLOW_TRACKING_URI"] = tracking
    if pareto:
        _show_front(study, checked_device(on), folds, metric, seed, runs, as_json)
        return
    made = build_ensemble(
        study,
        top=top,
        folds=folds,
        runs=runs,
        name=name,
        metric=metric,
        rule=rule,
        logits_only=logits_only,
        open_test=test,
        from_tracking=from_tracking,
        track=track,
        tta=tta,
        keep_best=keep_best,
        max_latency=max_latency,
        max_size=max_size,
        on=on,
        seed=seed,
        progress=progress,
    )
    emit(made, ensemble_lines, as_json)


def _show_front(
    study: list[str] | None,
    on: Device,
    folds: bool,
    metric: str | None,
    seed: int,
    runs: str | None,
    as_json: bool,
) -> None:
    from carray.drawing import drawn_or_none
    from carray.ensemble.front import find_front
    from carray.progress import progress
    from carray.reports.network_costs import front_lines
    from carray.reports.pictures.front import front_picture

    found = find_front(
        study,
        on=on,
        folds=folds,
        metric=metric,
        runs=runs,
        seed=seed,
        progress=progress,
    )
    picture = drawn_or_none(lambda: front_picture(found))
    drawn = [f"picture: {picture}"] if picture else []
    emit(
        found,
        lambda found: [*front_lines(found, folds), *drawn],
        as_json,
        lambda found: {**found.as_dict(), "picture": picture},
    )


def predict(
    model: ModelArgument,
    images: Annotated[
        list[Path], typer.Argument(help="Image files, folders, or CSV files of paths.")
    ],
    out: Annotated[Path, typer.Option(help="The CSV to write.")] = Path("predictions.csv"),
    top_k: Annotated[int, typer.Option(help="Classes a row holds, likeliest first.")] = 3,
    submission: Annotated[
        bool, typer.Option("--submission", help="Write Id,Category rows, as Kaggle wants them.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write a column for each class.")
    ] = False,
    sample: Annotated[
        Path | None,
        typer.Option(
            help="A sample submission: its columns (a category, or one a class), ids and order."
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Answer by make, model, generation, body or year; auto: as deep as is sure."
        ),
    ] = None,
    level: Annotated[
        str | None, typer.Option("--level", hidden=True, help="What --by was called.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Calibrated probability from which a level is sure; default: 0.8."),
    ] = None,
    label_parts: LabelPartsOption = "auto",
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name the classes of images with a packaged model; unreadable images are named, not fatal.

    [dim]Examples:[/]

      carray predict autumn-top3 photos/ --out predictions.csv

      carray predict autumn/0007 a.jpg b.jpg

      carray predict autumn-top3 test/ --sample sample_submission.csv --out submission.csv

      carray predict autumn-top3 photos/ --by auto --threshold 0.8
    """
    by = renamed("--level", level, "--by", by)
    check_models(runs, model)
    from carray.inference.level_answers import LevelRequest
    from carray.inference.predict import predict_to_csv
    from carray.progress import progress
    from carray.reports.ensemble import prediction_lines

    done = predict_to_csv(
        model,
        images,
        out,
        top_k=top_k,
        submission=submission,
        probabilities=probabilities,
        sample=sample,
        level=LevelRequest(by, threshold, label_parts) if by else None,
        runs=runs,
        progress=progress,
    )
    emit(done, prediction_lines, as_json)


def report(
    study: StudyOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The picture, a .png; default: picture.png in the study's folder."),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Trials that the table shows.")] = 10,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a study found: its table, and a picture of its trials and ensembles.

    [dim]Examples:[/]

      carray report

      carray report --study autumn --out autumn.png
    """
    from carray.drawing import check_png, drawn_or_none
    from carray.reports.pictures.plots import study_picture
    from carray.reports.study import study_json, study_lines
    from carray.runs_folder import RunsFolder

    if out:
        check_png(out)
    folder = RunsFolder.at(runs).find_study(study)
    picture = drawn_or_none(lambda: study_picture(folder, out))
    drawn = ["", f"picture: {picture}"] if picture else []
    emit(
        folder,
        lambda folder: [*study_lines(folder, rows, is_report=True), *drawn],
        as_json,
        lambda folder: {**study_json(folder), "picture": picture},
    )
