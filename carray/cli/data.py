"""`carray data`: prepare, show, warm, push, toy."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, cast

import typer

from carray.cli.shared import DataArgument, JsonOption, emit, renamed
from carray.errors import counted

if TYPE_CHECKING:
    from carray.data.manifest import Crop
    from carray.data.summary import DataSummary

MAX_CLASSES = 40  # rows of classes shown before the middle is left out
MAX_EXCLUDED = 15  # excluded images shown before the rest is counted
WIDTH = 100

app = typer.Typer(
    no_args_is_help=True, help="Images and labels: prepare them, look at them, decode them once."
)


@app.command()
def prepare(
    source: Annotated[
        Path, typer.Argument(help="Image folder (CLASS/... or train/CLASS/...), CSV, or devkit.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The data folder to write.")],
    images: Annotated[Path | None, typer.Option(help="Image folder of a CSV.")] = None,
    id_column: Annotated[str | None, typer.Option(help="CSV column of image names.")] = None,
    label_column: Annotated[
        str | None, typer.Option(help="CSV column of classes, or several: make,model.")
    ] = None,
    level: Annotated[
        int | None, typer.Option(help="Levels of folders that name a class: 2 for MAKE/MODEL.")
    ] = None,
    split_words: Annotated[
        str | None, typer.Option(help="Of a CSV's split column: 0=train,1=val,2=test.")
    ] = None,
    min_images: Annotated[int, typer.Option(help="Leave out classes with fewer images.")] = 0,
    near_duplicates: Annotated[
        str, typer.Option(help="off, report, or exclude those that leak between splits.")
    ] = "exclude",
    crop: Annotated[str, typer.Option(help="box cuts images to their boxes; or none.")] = "none",
    margin: Annotated[float, typer.Option(help="A crop box grows by this share.")] = 0.1,
    exclude: Annotated[
        Path | None,
        typer.Option(help="File of images to leave out: a name per line, or a CSV with ids."),
    ] = None,
    merge: Annotated[
        Path | None,
        typer.Option(help=r"Classes that are one: YAML name: \[a, b] or CSV name,a,b."),
    ] = None,
    val_size: Annotated[float, typer.Option(help="Share that steers training and search.")] = 0.15,
    blend_size: Annotated[float, typer.Option(help="Share that only ensembles look at.")] = 0.1,
    test_size: Annotated[float, typer.Option(help="Share that is locked for the end.")] = 0.15,
    val: Annotated[
        float | None, typer.Option(hidden=True, help="What --val-size was called.")
    ] = None,
    blend: Annotated[
        float | None, typer.Option(hidden=True, help="What --blend-size was called.")
    ] = None,
    test: Annotated[
        float | None, typer.Option(hidden=True, help="What --test-size was called.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Cut train into K folds; 0: none.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the cut.")] = 0,
    store_budget: Annotated[
        float, typer.Option(help="Disk that decoded pixels may take, in GiB.")
    ] = 50.0,
    as_json: JsonOption = False,
) -> None:
    """Read labelled images, find what is wrong, split them, and write a data folder.

    Splits that the source brings are kept; shares are of the images it leaves to be split.
    Near-duplicates, and boxes of one file, never straddle two splits. Nothing is copied: the
    images stay where they are.
    """
    from carray.data.preparation.prepare import prepare as prepare_data
    from carray.data.preparation.scan_cache import cache_path, num_cached
    from carray.data.summary import summarise
    from carray.progress import progress
    from carray.reports.hints import shown_path

    kept = num_cached(cache_path(out.resolve()))
    if kept and source.exists():
        print(
            f"going on: {counted(kept, 'image was', 'images were')} read before; "
            "changed ones are read again",
            file=sys.stderr,
        )
    manifest = prepare_data(
        source,
        out,
        images=images,
        id_column=id_column,
        label_column=label_column,
        level=level,
        split_words=split_words,
        min_images=min_images,
        near_duplicates=near_duplicates,
        crop=cast("Crop", crop),  # which `prepare` checks
        margin=margin,
        exclude=exclude,
        merge=merge,
        val_size=renamed("--val", val, "--val-size", val_size),
        blend_size=renamed("--blend", blend, "--blend-size", blend_size),
        test_size=renamed("--test", test, "--test-size", test_size),
        folds=folds,
        seed=seed,
        store_budget_gib=store_budget,
        progress=progress,
    )
    data = shown_path(out)
    emit(
        summarise(manifest),
        lambda found: [*_head_lines(found), *_flaw_lines(found), *_next_lines(found, data)],
        as_json,
        indent=1,
    )


@app.command()
def show(
    folder: DataArgument,
    all_classes: Annotated[bool, typer.Option("--all", help="Show every class and image.")] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Also draw a few images of every class: a .png file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print images per class and split, their sizes, and what was excluded and why."""
    from carray.data.manifest import Manifest
    from carray.data.summary import summarise
    from carray.reports.class_statistics import image_lines, statistics_lines

    manifest = Manifest.load(folder)
    if sheet is not None:
        from carray.progress import progress
        from carray.reports.pictures.sample_sheet import sample_sheet

        sample_sheet(manifest, sheet, progress=progress)
    emit(
        summarise(manifest, look=True),
        lambda found: [
            *_head_lines(found),
            *_class_lines(found, all_classes),
            *statistics_lines(found.class_statistics),
            *(image_lines(found.image_statistics) if found.image_statistics else []),
            *_flaw_lines(found, all_classes),
            *(["", f"sample sheet: {sheet}"] if sheet else []),
        ],
        as_json,
        indent=1,
    )


@app.command()
def warm(
    folder: DataArgument,
    size: Annotated[int, typer.Option(help="Side that the backbone will see, in pixels.")] = 224,
    fit: Annotated[str, typer.Option(help="How an image becomes a square.")] = "squash",
    verify: Annotated[bool, typer.Option(help="Check every stored image's checksum.")] = False,
    store_budget: Annotated[
        float | None, typer.Option(help="Disk that decoded pixels may take, in GiB.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Decode and resize every image once, so that no trial has to; studies do it themselves."""
    from carray.data.pixels.store import build_store
    from carray.progress import progress

    warmed = build_store(folder, size, fit, progress, store_budget_gib=store_budget, verify=verify)
    line = (
        f"{warmed.images:,} images at {warmed.side} px ({warmed.gib:.2f} GiB) in {warmed.folder}"
        f"{', checked' if verify else ''}, {warmed.seconds:.1f} s"
    )
    emit(warmed, lambda _: [line], as_json, indent=1)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder that `prepare` made.")],
    url: Annotated[str, typer.Argument(help="Where to: s3://BUCKET/cars, say.")],
    size: Annotated[
        list[int] | None,
        typer.Option(help="Side that a backbone sees, in pixels; may be repeated; default: 224."),
    ] = None,
    fit: Annotated[str, typer.Option(help="How an image becomes a square.")] = "squash",
    as_json: JsonOption = False,
) -> None:
    """Put a data set at a URL: its manifest and its decoded pixels; photographs stay here.

    `carray tune URL` trains on it from any machine.
    """
    from carray.data.pixels.store import build_store
    from carray.data.remote_data import push_data
    from carray.progress import progress

    stores = [Path(build_store(folder, side, fit, progress).folder) for side in size or [224]]
    pushed = push_data(folder, stores, url, progress)
    line = f"{', '.join(pushed.stores)} ({pushed.gib:.2f} GiB) are at {pushed.url}"
    emit(pushed, lambda _: [line, f"next: carray tune {quote(url)}"], as_json, indent=1)


@app.command()
def toy(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The image folder to draw.")],
    images_per_class: Annotated[int, typer.Option(help="Images of each of the 12 models.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same images.")] = 0,
) -> None:
    """Draw the toy cars: 12 models of 4 brands, three pairs told apart by a badge alone."""
    from carray.data.synthetic import render_toycars
    from carray.progress import progress
    from carray.reports.hints import shown_path

    made = render_toycars(folder, seed=seed, images_per_class=images_per_class, progress=progress)
    print(f"toy cars are in {made}, their planted flaws in {made / 'flaws.csv'}")
    out = shown_path(Path(f"{folder}-data"))
    print(f"next: carray data prepare {shown_path(folder)} --out {out}")


def _next_lines(summary: DataSummary, data: str) -> list[str]:
    """Return the commands that suit the data: the space is left to `tune`, which looks at them."""
    from carray.data.synthetic import MODELS

    is_toy = {row.name for row in summary.classes} <= {model.label for model in MODELS}
    folds = f" --folds {summary.folds}" if summary.folds else ""
    tune = f"carray tune {data} {'--trials 12' if is_toy else '--budget 1h'}{folds}"
    show = f"next: carray data show {data}"
    if not summary.splits["val"]:
        why = "there are no val images, which a search needs: --val-size 0.15 cuts some"
        return ["", show, *([f"      carray train {data}{folds}"] if folds else []), why]
    return [
        "",
        show,
        f"      {tune} --dry-run",
        f"      {tune}",
    ]


def _head_lines(summary: DataSummary) -> list[str]:
    splits = ", ".join(f"{name} {count:,}" for name, count in summary.splits.items() if count)
    facts = []
    if summary.source_splits:
        facts.append(f"the source's own: {', '.join(summary.source_splits)}")
    if summary.folds:
        facts.append(f"{counted(summary.folds, 'fold')} of train")
    if summary.near_duplicate_groups:
        what = (
            "near-duplicates or boxes of one file" if summary.crop == "box" else "near-duplicates"
        )
        facts.append(
            f"{counted(summary.near_duplicate_groups, 'group')} of {what}, each in one split"
        )
    if summary.crop == "box":
        facts.append("cut to boxes")
    if summary.merged:
        facts.append(f"{counted(len(summary.merged), 'class')} merged")
    return [
        f"{summary.folder}  ({summary.kind}, manifest {summary.hash[:12]})",
        f"{summary.images:,} images of {counted(len(summary.classes), 'class')}: {splits}",
        *([f"read: {summary.reading}"] if summary.reading else []),
        *(["; ".join(facts)] if facts else []),
    ]


def _class_lines(summary: DataSummary, all_classes: bool) -> list[str]:
    """Return a line per class; of very many the largest and the smallest."""
    from carray.reports.table import table

    used = [name for name, count in summary.splits.items() if count]
    rows, half = summary.classes, MAX_CLASSES // 2
    hidden = 0 if all_classes else max(0, len(rows) - MAX_CLASSES)
    if hidden:
        by_size = sorted(rows, key=lambda row: -row.total)
        rows = by_size[:half] + by_size[-half:]
    numbers = (f"{name}:>9," for name in (*used, "total", "excluded"))
    lines = table(
        ("class:<5", *numbers),
        ((row.name, *(row.splits[name] for name in used), row.total, row.excluded) for row in rows),
    )
    if hidden:
        lines.insert(len(lines) - half, f"... {counted(hidden, 'class')} of middle size: --all")
    return ["", *lines]


def _flaw_lines(summary: DataSummary, all_images: bool = False) -> list[str]:
    lines = []
    if summary.excluded:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in summary.excluded_by_reason.items())
        shown = summary.excluded if all_images else summary.excluded[:MAX_EXCLUDED]
        lines += ["", f"excluded {counted(len(summary.excluded), 'image')}: {kinds}"]
        lines += [f"  {one.image_id}  {one.reason}" for one in shown]
        if more := len(summary.excluded) - len(shown):
            lines.append(f"  ... {more:,} more: carray data show {quote(summary.folder)} --all")
    if summary.notes:
        lines += ["", "to know:", *(f"  {note}" for note in summary.notes)]
    return lines
