"""The table of experiments as text, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from carray.analysis.experiments import Experiment, Experiments
from carray.errors import ConfigError
from carray.progress import seconds_text
from carray.reports.table import interval_text, line_width, table, value_text

TRIALS = (
    *("trial:<6", "backbone:<19", "time:>7", "params:>8", "GiB:>6.2f", "img/s:>7,.0f"),
    *("loss train:>11.3f", "val:>7.3f", "top-1 train:>12.3f", "val:>6.3f", "gap:>+7.3f"),
)
COLUMNS = (
    *("trial", "state", "backbone", "epochs", "seconds", "parameters", "peak_memory_gib"),
    *("images_per_second", "train_loss", "val_loss", "train_top1", "val_top1", "gap", "macro_f1"),
    *("balanced_accuracy", "worst_class", "against", "changes", "gain", "gain_low", "gain_high"),
    *("verdict", "remark"),
)
COSTS = ("ms_cpu", "ms_cuda", "mb", "multiply_adds")  # where they were measured
NOTE = (
    "gap: top-1 in training (of augmented images) less that on val. Each trial is held against the "
    "earlier one whose configuration is nearest: how much lower its log-loss is on the same val "
    "images, 95 %, calibrated where the study's metric is; what another seed would change is not "
    "in it"
)


def experiment_lines(found: Experiments) -> list[str]:
    """Return two lines a trial: its figures, then what changed and whether that helped."""
    figures = [_cells(row) for row in found.rows]
    shown = table(TRIALS, figures, spare=("img/s", "GiB"), rule=True)
    lines, rows = shown[: -len(figures)], shown[-len(figures) :]
    for line, row in zip(rows, found.rows, strict=True):
        lines += [line, *_costs(row)]
        indent = " " * 6
        for told in filter(None, (_told(row) if row.against else "", row.remark)):
            lines += wrap(
                told, line_width(), initial_indent=indent, subsequent_indent=indent + "  "
            )
    return [*lines, "", *wrap(NOTE, line_width())]


def _cells(row: Experiment) -> tuple[object, ...]:
    millions = None if row.parameters is None else f"{row.parameters / 1e6:.2f} M"
    return (
        *(row.trial[-4:], row.backbone, seconds_text(row.seconds), millions, row.peak_memory_gib),
        *(row.images_per_second, row.train_loss, row.val_loss, row.train_top1, row.val_top1),
        row.gap,
    )


def _costs(row: Experiment) -> list[str]:
    times = [f"{row.costs[on]:.1f} ms on {on[3:]}" for on in COSTS[:2] if on in row.costs]
    if not times:
        return []
    size = f"{row.costs['mb']:.1f} MB, {row.costs['multiply_adds'] / 1e9:.3g} G multiply-adds"
    return [f"      an image: {', '.join(times)}; {size}"]


def _told(row: Experiment) -> str:
    gain = f"{interval_text(row.gain, '+.3f')}, {row.verdict}: " if row.gain else ""
    return f"{gain}against {row.against[-4:]}: {changes_text(row.changes)}"


def changes_text(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Return `optimizer.lr 0.001 -> 0.0003, ...`."""
    values = ((name, *map(value_text, both)) for name, both in changes.items())
    words = (f"{name} {then} -> {now}" for name, then, now in values)
    return ", ".join(words) or "nothing"


def columns_of(found: Experiments) -> tuple[str, ...]:
    """Return the table's columns: `COLUMNS`, and what was measured of the networks' costs."""
    measured = {name for row in found.rows for name in row.costs}
    return *COLUMNS, *(name for name in COSTS if name in measured)


def experiment_rows(found: Experiments) -> list[list[object]]:
    """Return a row a trial, in the order of `columns_of`; what is unknown is empty."""
    columns = columns_of(found)
    return [[_plain(_value(row, name)) for name in columns] for row in found.rows]


def _value(row: Experiment, name: str) -> object:
    if name == "changes":
        return changes_text(row.changes) if row.against else ""
    if name.startswith("gain"):
        part = name.removeprefix("gain").lstrip("_") or "value"
        return getattr(row.gain, part) if row.gain else ""
    return row.costs.get(name, "") if name in COSTS else getattr(row, name)


def _plain(value: object) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.5g}"
    return "" if value is None else value


def experiments_csv(found: Experiments) -> list[str]:
    """Return the table as lines of CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns_of(found), *experiment_rows(found)])
    return text.getvalue().splitlines()


def experiments_markdown(found: Experiments) -> list[str]:
    """Return the table as lines of Markdown."""
    columns = columns_of(found)
    rule = ["---" for _ in columns]
    return [_bars(row) for row in (columns, rule, *experiment_rows(found))]


def _bars(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


FORMATS = {
    "text": experiment_lines,
    "csv": experiments_csv,
    "markdown": experiments_markdown,
}
ENDINGS = {".csv": "csv", ".md": "markdown", ".txt": "text"}


def format_of(asked: str | None, out: Path | None) -> str:
    """Return the format that a person asked for, or that a file's ending tells.

    Raises:
        ConfigError: it is none of `FORMATS`, or the file ends as another's.
    """
    if asked is not None and asked not in FORMATS:
        raise ConfigError(f"--format {asked!r} must be one of {', '.join(FORMATS)}")
    if out is None or not out.suffix:
        return asked or "text"
    found = ENDINGS.get(out.suffix.lower())
    if found is None or asked not in (None, found):
        fits = [ending for ending, own in ENDINGS.items() if asked in (None, own)]
        of = f" for --format {asked}" if asked else ""
        raise ConfigError(f"--out {out} must end in {' or '.join(fits)}{of}")
    return found
