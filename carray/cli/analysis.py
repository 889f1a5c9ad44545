"""Commands over trained models: compare, errors, features, add-class."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from carray.cli.log import log_on_stdout
from carray.cli.shared import (
    DataArgument,
    JsonOption,
    LabelPartsOption,
    ModelArgument,
    RunsOption,
    StudyOption,
    TestOption,
    check_data,
    check_models,
    check_studies,
    emit,
    renamed,
    told_if_interrupted,
)
from carray.errors import ConfigError, counted


def compare(
    sides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[A B]",
            help="Two trials (STUDY/NUMBER), or two studies of one configuration's seeds.",
            show_default=False,
        ),
    ] = None,
    study: StudyOption = None,
    trial: Annotated[
        list[int] | None,
        typer.Option(help="Its number, once for each trial; default: the best of each backbone."),
    ] = None,
    trials: Annotated[
        str | None, typer.Option("--trials", hidden=True, help="What --trial was called.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every complete trial.")] = False,
    metric: Annotated[
        str | None, typer.Option(help="Says what is best, on val; default: the study's own.")
    ] = None,
    test: TestOption = True,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a study's models side by side: size, scores, images that only one got right or wrong.

    With A and B: what B changes against A, paired, on the images that both have. Their data may
    differ: prepared with and without --exclude, or --crop box.

    [dim]Examples:[/]

      carray compare --study four

      carray compare --trial 3 --trial 7 --no-test

      carray compare noisy clean
    """
    old = None if trials is None else parse_numbers("--trials", trials)
    trial = renamed("--trials", old, "--trial", trial)
    if sides:
        if len(sides) != 2 or study or trial or every:
            raise ConfigError(
                f"two sides can be compared, as in `carray compare A B`, without --study, --trial "
                f"and --all; got {' '.join(sides)}"
            )
        _compare_sides(sides[0], sides[1], test, seed, runs, as_json)
        return
    check_studies(runs, study)
    from carray.analysis.compare_trials import compare_trials
    from carray.reports.analysis import model_comparison_lines

    found = compare_trials(
        study,
        trials=trial,
        every=every,
        metric=metric,
        open_test=test,
        runs=runs,
        seed=seed,
    )
    emit(found, model_comparison_lines, as_json)


def _compare_sides(
    first: str, second: str, test: bool, seed: int, runs: str | None, as_json: bool
) -> None:
    from carray.analysis.compare_pair import compare_sides

    found = compare_sides(first, second, open_test=test, runs=runs, seed=seed)
    from carray.reports.analysis import paired_comparison_lines  # slow: names are looked up by now

    emit(found, paired_comparison_lines, as_json)


def errors(
    model: ModelArgument,
    data: DataArgument,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("errors"),
    split: Annotated[str, typer.Option(help="Whose images: test, blend, val or train.")] = "test",
    count: Annotated[int, typer.Option(min=1, help="Mistakes on the sheet.")] = 12,
    label_parts: LabelPartsOption = "auto",
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a model gets wrong, each image beside examples of both classes: a PNG and a CSV.

    The most confident mistakes come first, told apart as wrong make, model, body or year where
    class names say these. Looking at test is recorded.

    [dim]Examples:[/]

      carray errors autumn-top3 cars

      carray errors autumn/0007 cars --split val --out val-errors --count 20
    """
    check_models(runs, model)
    check_data(data)
    from carray.progress import progress
    from carray.reports.misclassified import misclassified_lines, write_misclassified

    found = write_misclassified(
        model,
        data,
        out,
        split=split,
        shown=count,
        label_parts=label_parts,
        runs=runs,
        progress=progress,
    )
    emit(found, misclassified_lines, as_json)


def features(
    model: ModelArgument,
    data: DataArgument,
    out: Annotated[
        Path, typer.Option(help="A .npz or .parquet file; without an ending both.")
    ] = Path("features"),
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write what a model's backbone sees in each image: pooled features, one row an image.

    [dim]Examples:[/]

      carray features autumn/0007 cars --out cars-features

      carray features autumn-top3 other-cars --out other.parquet
    """
    check_models(runs, model)
    check_data(data)
    from carray.inference.features import export_features
    from carray.progress import progress

    done = export_features(model, data, out, runs=runs, progress=progress)
    shape = f"{counted(done.images, 'image')} x {done.width} features ({'; '.join(done.members)})"
    emit(done, lambda done: [shape, *map(str, done.files)], as_json)


def add_class(
    model: ModelArgument,
    images: Annotated[Path, typer.Option(help="Folder of the new class's images.")],
    new_class: Annotated[
        str | None, typer.Option("--class", help="The new class; it is needed.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="The model's data, where they have moved.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model package's name; default: MODEL-plus-CLASS.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", hidden=True, help="What --name was called.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of fine-tuning.")] = 5,
    lr: Annotated[
        float | None, typer.Option(help="Peak; default: a fifth of the member's own.")
    ] = None,
    replay: Annotated[
        int | None,
        typer.Option(
            min=1, help="Training images of each old class; default: as many as the new has."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the cut and of the training.")] = 0,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="A folder of pretrained weights.")
    ] = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Teach a model one more class: its head grows, the old classes are replayed.

    Says how often the new class is right, and the old ones before and after. Every member of an
    ensemble learns it; forests and nearest neighbours are fitted again.

    [dim]Examples:[/]

      carray add-class autumn-top3 --images trucks --class BIG_TRUCKS

      carray add-class autumn/0007 --images trucks --class BIG_TRUCKS --epochs 8 --replay 40
    """
    if new_class is None:  # as it was called before
        new_class, name = renamed("--name", name, "--class", None), None
    name = renamed("--out", out, "--name", name)
    if new_class is None:
        raise ConfigError("the new class has no name: give it with --class")
    check_models(runs, model)
    from carray.incremental.add_class import add_class as add
    from carray.progress import progress
    from carray.reports.analysis import added_class_lines

    logged = nullcontext() if as_json else log_on_stdout("carray.incremental.add_class")
    with told_if_interrupted("no model was made; the same command begins again"), logged:
        added = add(
            model,
            images,
            new_class,
            data=data,
            out=name,
            epochs=epochs,
            lr=lr,
            replay=replay,
            seed=seed,
            weights=weights,
            runs=runs,
            progress=progress,
        )
    emit(added, added_class_lines, as_json)


def parse_numbers(option: str, text: str) -> list[int]:
    """Read `3,7`; raises ConfigError for anything else."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() for word in words):
        raise ConfigError(f"{option} {text!r} must be numbers with commas, as in 3,7")
    return [int(word) for word in words]
