"""`carray train`, `replay` and `sanity`: one trial outside a search, a recorded one, 32 images."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from shlex import quote
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from carray import metrics
from carray.cli.shared import (
    DataArgument,
    JsonOption,
    RunsOption,
    SetOption,
    WeightsOption,
    check_data,
    emit,
    parse_sets,
    renamed,
    told_if_interrupted,
)
from carray.errors import ConfigError, counted
from carray.progress import LateBar

if TYPE_CHECKING:
    from carray.records import TrialRecord
    from carray.training.reproduce import Reproduction


SINGLE = "single"  # the study of trials outside a search, unless another is named


def train(
    data: DataArgument,
    set_: SetOption = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="YAML of names and values, dotted or nested; --set wins."),
    ] = None,
    study: Annotated[str, typer.Option(help="The folder that collects single trials.")] = SINGLE,
    folds: Annotated[
        int, typer.Option(min=0, help="Train on each of the data's folds, one after the other.")
    ] = 0,
    seeds: Annotated[
        int,
        typer.Option(min=1, help="Train with so many seeds, the configuration's and those after."),
    ] = 1,
    classifier: Annotated[
        str | None,
        typer.Option(help="linear_probe, random_forest or knn, fitted to --features-of."),
    ] = None,
    features_of: Annotated[
        str | None, typer.Option(help="The trial whose features it reads: STUDY/NUMBER.")
    ] = None,
    weights: WeightsOption = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train one configuration, outside a search.

    The same command goes on where a killed one stopped. Ends with the best epoch, whose weights
    and logits are kept. `carray compare A B` holds the seeds of two configurations, each in a study
    of its own, against each other.

    [dim]Examples:[/]

      carray train cars --set backbone=resnet50 --set optimizer.lr=3e-4

      carray train cars --set backbone=convnext_tiny --set pretrained=convnext.safetensors

      carray train cars --seeds 3 --study baseline

      carray train cars --config recipe.yaml --set epochs=30 --set augment.strength=0.6

      carray train cars --classifier random_forest --features-of autumn/0007

      carray train cars --classifier random_forest --features-of autumn/0007
      --set head.n_estimators=100
    """
    if classifier or features_of:
        unread = {"--study": study != SINGLE, "--folds": folds, "--seeds": seeds > 1}
        unread["--weights"] = weights is not None
        if given := [name for name, is_given in unread.items() if is_given]:
            raise ConfigError(
                f"a --classifier joins the study of --features-of, with its weights and split: "
                f"leave out {', '.join(given)}"
            )
        settings = {**(read_config(config) if config else {}), **parse_sets(set_ or [])}
        _train_classical(data, classifier, features_of, settings, runs, as_json)
        return
    if folds and seeds > 1:
        raise ConfigError(f"--folds {folds} and --seeds {seeds} don't go together: leave one out")
    check_data(data)
    from carray.progress import progress
    from carray.training.cross_validation import train_folds, train_seeds
    from carray.training.train import train as train_single

    params = {**(read_config(config) if config else {}), **parse_sets(set_ or [])}
    keywords: dict[str, Any] = {"runs": runs, "study": study, "weights": weights}
    kept = "epochs that are done are kept; the same command goes on"
    with (
        told_if_interrupted(kept),
        closing(EpochLines(as_json, _images_an_epoch(data, params, folds))) as lines,
    ):
        keywords |= {"on_epoch": lines.show, "on_batch": lines.advance, "progress": progress}
        if folds:
            _print_repeated(train_folds(data, params, folds, **keywords), "fold", as_json, runs)
            return
        if seeds > 1:
            _print_repeated(train_seeds(data, params, seeds, **keywords), "seed", as_json, runs)
            return
        record = train_single(data, params, **keywords)
    emit(record, lambda record: _end_lines(record, lines.seen, runs), as_json)
    if record.state != "complete":
        raise typer.Exit(1)


def _images_an_epoch(data: str, params: Mapping[str, Any], folds: int) -> int:
    from carray.data.manifest import Manifest

    manifest = Manifest.load(data)
    fold = params.get("fold")
    if isinstance(fold, int) and 0 <= fold < manifest.num_folds:
        return len(manifest.fold_rows(fold)[0])
    images = len(manifest.rows("train"))
    return images - images // folds if folds else images


def _print_repeated(
    records: list[TrialRecord], by: Literal["fold", "seed"], as_json: bool, runs: str | None
) -> None:
    """Print what a configuration is worth on its folds or with its seeds; why some failed."""
    from carray.reports.analysis import repeated_lines
    from carray.reports.hints import runs_option

    complete = [record for record in records if record.state == "complete"]
    for record in records:
        if record.state != "complete":
            print(f"trial {record.name} {record.state}: {record.reason}", file=sys.stderr)
    what = f"ensemble --top {len(complete)}"
    if by == "fold":
        what = "folds" if len(complete) == len(records) else "ensemble --with-folds --top 1"
    hint = f"next: carray {what} --study {quote(records[0].study)}{runs_option(runs)}"
    emit(records, lambda _: [*repeated_lines(complete, by), "", hint] if complete else [], as_json)
    if len(complete) < len(records):
        raise typer.Exit(1)


def _train_classical(
    data: str,
    classifier: str | None,
    features_of: str | None,
    settings: Mapping[str, Any],
    runs: str | None,
    as_json: bool,
) -> None:
    from carray.progress import progress
    from carray.training.features.classifiers import train_feature_classifier

    if not classifier or not features_of:
        raise ConfigError("--classifier and --features-of need each other")
    record = train_feature_classifier(
        data, classifier, features_of, settings=settings, runs=runs, progress=progress
    )
    chosen = [f"{name} {value}" for name, value in record.params.items() if name != "head.kind"]
    head = f"trial {record.name}: {classifier}, {', '.join(chosen)}"
    emit(record, lambda record: [head, *_end_lines(record, 1, runs)], as_json)


def replay(
    trial: Annotated[str, typer.Argument(help="STUDY/NUMBER, or a trial's folder.")],
    epochs: Annotated[int, typer.Option(min=1, help="How many of its epochs to run again.")] = 1,
    data: Annotated[
        Path | None, typer.Option("--data", help="The prepared data set, where it has moved.")
    ] = None,
    weights: WeightsOption = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a recorded trial again, aside, and compare: scores must agree to 1e-4.

    It runs with as many threads and ranks as then, in the same precision and layout; what can't be
    had here is said first. Exit code 1 where the scores differ: another machine, other versions.

    [dim]Examples:[/]

      carray replay single/0003

      carray replay autumn/0017 --epochs 3 --json
    """
    from carray.runs_folder import RunsFolder

    RunsFolder.at(runs).find_trial(trial)  # before what is slow to import
    from carray.training.reproduce import reproduce as replay_trial

    def tell(notes: Sequence[str]) -> None:
        for note in notes:  # before the first epoch: they say what to expect
            print(f"note: {note}", file=sys.stderr if as_json else sys.stdout, flush=True)

    done = replay_trial(trial, runs=runs, data=data, weights=weights, epochs=epochs, on_start=tell)
    data_of = {"trial": done.record.name, "agrees": done.agrees, "differences": done.differences}
    data_of |= {"epochs": done.epochs, "notes": done.notes}
    emit(done, replay_lines, as_json, lambda done: data_of)
    if not done.agrees:
        raise typer.Exit(1)


def read_config(file: Path) -> dict[str, Any]:
    """Read YAML 1.2 of a configuration into dotted names.

    Raises:
        ConfigError: the file can't be read or is no mapping.
    """
    from carray.yaml_loader import parse

    try:
        value = parse(file.read_text(encoding="utf-8"), str(file)).value
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {file} can't be read: {error}") from None
    if not isinstance(value, Mapping):
        raise ConfigError(f"--config {file} must hold names and values, as in `epochs: 30`")
    return dict(_dotted(value, ""))


def _dotted(tree: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


class EpochLines:
    """One line an epoch, as it ends, with what is left; a bar on a terminal within a long one."""

    def __init__(self, on_stderr: bool, images: int = 0) -> None:
        self.seen = 0
        self._stream = sys.stderr if on_stderr else sys.stdout
        self._images = images  # of an epoch
        self._bar = LateBar("training", images)

    def advance(self, images: int) -> None:
        """Take a batch in."""
        self._bar.advance(images)

    def close(self) -> None:
        """Take the bar away, however the training ends."""
        self._bar.close()

    def show(self, record: TrialRecord) -> None:
        """Print the record's last epoch, after what is trained where it is the first."""
        from carray.data.pixels.own_transform import transform_note
        from carray.reports.table import fitted, terminal_columns

        self._bar.close()
        self._bar = LateBar(f"epoch {len(record.epochs) + 1}", self._images)
        if self.seen == 0 or len(record.epochs) == 1:
            head = f"trial {record.name}: {_what(record)}"
            print(fitted(head, self._stream), file=self._stream)
            if own := transform_note(record.config.augment, record.config.image_size):
                print(fitted(own, self._stream), file=self._stream)
        self.seen += 1
        line = epoch_line(record, terminal_columns(self._stream))
        print(line, file=self._stream, flush=True)


def _what(record: TrialRecord) -> str:
    config = record.config
    parameters = (record.parameters or 0) / 1e6
    taught = f", taught by {Path(config.distill.teacher).name}" * bool(config.distill.teacher)
    return (
        f"{config.backbone} ({parameters:.1f} M parameters, from {record.initialisation}), "
        f"{config.image_size} px, {counted(config.epochs, 'epoch')}{taught}"
    )


def epoch_line(record: TrialRecord, columns: int | None = None) -> str:
    """Say the record's last epoch in at most 100 columns, or 80; `*` marks the best so far."""
    from carray.progress import seconds_text
    from carray.reports.table import USUAL

    row, epoch, config = record.epochs[-1], len(record.epochs), record.config
    seconds = [earlier[metrics.EPOCH_SECONDS] for earlier in record.epochs]
    left = (config.epochs - epoch) * sum(seconds) / epoch
    mark = "*" if record.best_epoch == epoch else " "
    is_wide = columns is None or columns >= USUAL
    return (
        f"{epoch:>4}/{config.epochs} {mark} loss {row[metrics.TRAIN_LOSS]:.3f} | "
        f"val loss {row[metrics.VAL_LOG_LOSS]:.3f} "
        f"cal. {row[metrics.VAL_CALIBRATED_LOG_LOSS]:.3f} top-1 {row[metrics.VAL_TOP1]:.3f}"
        + f" F1 {row[metrics.VAL_MACRO_F1]:.3f}" * is_wide
        + f" | {row[metrics.IMAGES_PER_SECOND]:,.0f} images/s" * is_wide
        + (f" | {seconds_text(left)} left" if left else "")
    )


def _end_lines(record: TrialRecord, epochs_seen: int, runs: str | None) -> list[str]:
    """Return how a complete trial ended; of any other, say it on stderr."""
    from carray.config import CLASSICAL_HEADS
    from carray.reports.hints import runs_option
    from carray.reports.table import line_width
    from carray.training.stopping import starved_by_plateau

    best = record.best_epoch
    if record.state != "complete" or best is None:
        print(f"trial {record.name} {record.state}: {record.reason}", file=sys.stderr)
        return []
    row = record.epochs[best - 1]
    lines = [] if epochs_seen else [f"trial {record.name} was trained already"]
    lines += [
        "",
        f"best epoch {best} of {len(record.epochs)}: "
        f"val log-loss {row[metrics.VAL_LOG_LOSS]:.4f}, "
        f"{row.get(metrics.VAL_CALIBRATED_LOG_LOSS, math.nan):.4f} calibrated",
        f"  top-1 {row[metrics.VAL_TOP1]:.4f}, top-5 {row[metrics.VAL_TOP5]:.4f}, "
        f"macro F1 {row[metrics.VAL_MACRO_F1]:.4f}",
    ]
    if record.reason:
        lines.append(f"ended early: {record.reason}")
    if starved := starved_by_plateau(record.epochs, record.config):
        lines += wrap(starved, line_width())
    where, hints = runs_option(runs), []
    if record.config.head.kind not in CLASSICAL_HEADS:
        hints.append(f"carray replay {quote(record.name)}{where}")
    if record.config.fold is None:
        hints.append(f"carray ensemble --study {quote(record.study)} --top 1{where}")
    return [*lines, "", "next: " + "\n      ".join(hints)] if hints else lines


def replay_lines(done: Reproduction) -> list[str]:
    """Return the comparison as lines of at most 100 columns."""
    from carray.reports.table import table

    epochs = len(done.epochs)
    last, again = done.record.epochs[epochs - 1], done.epochs[-1]
    rows = (
        (name, f"{last.get(name, math.nan):.6f}", again[name], f"{difference:.1e}")
        for name, difference in done.differences.items()
    )
    columns = (f"epoch {epochs}:<14", "recorded:>14", "again:>14.6f", "difference:>14")
    return [
        f"trial {done.record.name}, {counted(epochs, 'epoch')} again: "
        + ("agrees" if done.agrees else "DIFFERS"),
        *table(columns, rows),
    ]


def sanity(
    data: DataArgument,
    set_: SetOption = None,
    num_images: Annotated[
        int, typer.Option(min=2, help="How many images to overfit, 4 a class.")
    ] = 32,
    images: Annotated[
        int | None,
        typer.Option("--images", min=2, hidden=True, help="What --num-images was called."),
    ] = None,
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
    num_images = renamed("--images", images, "--num-images", num_images)
    check_data(data)
    from carray.progress import progress
    from carray.training.overfit_check import sanity as overfit

    verdict = overfit(
        data,
        parse_sets(set_ or []),
        weights=weights,
        images=num_images,
        seconds=seconds,
        progress=progress,
    )
    result = "pass" if verdict.passed else "FAIL"
    head = f"{result}: {verdict.backbone}, {verdict.images} images, {verdict.seconds:.0f} s"
    emit(verdict, lambda verdict: [head, verdict.reason], as_json)
    if not verdict.passed:
        raise typer.Exit(1)
