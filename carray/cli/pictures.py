"""`carray confusion` and `carray explain`: what a model gets wrong, and where it looks."""

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
from carray.errors import counted

TrackOption = Annotated[
    bool,
    typer.Option("--track/--no-track", help="Put it beside the MLflow run, where there is one."),
]


def confusion(
    trial: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="STUDY/NUMBER, or a model package (name or folder)."),
    ],
    split: Annotated[str, typer.Option(help="val or blend.")] = "val",
    by: Annotated[
        str | None, typer.Option(help="make, model, generation, body or year; default: by class.")
    ] = None,
    label_parts: LabelPartsOption = "auto",
    out: Annotated[
        Path | None, typer.Option(help="The picture; default: in the trial's folder.")
    ] = None,
    track: TrackOption = True,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a confusion matrix: counts, shares, and the most frequent mistakes.

    Made from the logits that trials left, in a second. A trial's goes to its MLflow run too.

    [dim]Examples:[/]

      carray confusion autumn/0017

      carray confusion single/0003 --split blend --out confusion.png

      carray confusion autumn-top3 --by make
    """
    check_models(runs, trial)
    from carray.reports.confusion import draw_confusion

    drawn = draw_confusion(
        trial, split=split, by=by, label_parts=label_parts, out=out, runs=runs, track=track
    )
    lines = [f"{split} top-1 {drawn.top1:.4f}", f"picture: {drawn.picture}", drawn.note]
    emit(drawn, lambda _: filter(None, lines), as_json)


def explain(
    model: ModelArgument,
    images: Annotated[list[Path], typer.Argument(help="Image files, folders, CSVs of paths.")],
    out: Annotated[Path, typer.Option(help="The folder to write overlays to.")] = Path("explained"),
    of_class: Annotated[
        str | None, typer.Option("--class", help="Explain this class, not the predicted one.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Images at most.")] = 48,
    track: TrackOption = True,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where a model looks: Grad-CAM overlays, one PNG an image and a sheet of them all.

    Works for convolutional nets and transformers; an ensemble's members are averaged by weight. The
    pictures go to the model's MLflow run too. Where a CSV has the images' boxes, the share of the
    evidence that is background is said.

    [dim]Examples:[/]

      carray explain autumn/0017 photos/ --out explained

      carray explain best-ensemble a.jpg b.jpg --class "Audi TT Hatchback 2011"
    """
    check_models(runs, model)
    from carray.analysis.explain import explain as explain_images
    from carray.progress import progress

    done = explain_images(
        model,
        images,
        out,
        of_class=of_class,
        limit=limit,
        runs=runs,
        track=track,
        progress=progress,
    )
    lines = [f"{row.caption}  {row.name}"[:100] for row in done.rows]
    lines += [f"unreadable: {name}: {why}"[:100] for name, why in done.unreadable.items()]
    lines += ["", f"{counted(len(done.rows), 'overlay')} in {done.folder}", f"sheet: {done.sheet}"]
    emit(done, lambda _: [*lines, *filter(None, [done.note])], as_json)
