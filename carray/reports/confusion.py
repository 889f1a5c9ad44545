"""The confusion matrix of a trial as one picture, readable at 20 classes and at 200."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from carray.data.label_parts import AUTO, LabelParts, read_label_parts
from carray.drawing import check_png, font_file, matplotlib, plotting, save_png
from carray.errors import ConfigError, RecordError, counted
from carray.inference.held_predictions import find_held_model
from carray.inference.inputs import package_of
from carray.predictions.logits import read_logits
from carray.records import StudyFolder, TrialFolder
from carray.reports.pictures.panels import GRID, INK, MUTED
from carray.runs_folder import RunsFolder
from carray.tracking.artifacts import attach_or_warn
from carray.typing import Labels

Counts = npt.NDArray[np.int64]  # (true class, predicted class)
SPLITS = ("val", "blend")  # `test` is opened by what records it
MOST_LABELLED = 40  # classes whose names fit beside the matrix
BLOCK = 14  # classes of the enlarged block
NAME_LENGTH = 36
MOST_TICKS, MOST_MISTAKES = 45, 16
USUAL_FONT = "DejaVu Sans"  # comes with matplotlib


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often each class was taken for each."""

    title: str
    classes: tuple[str, ...]
    counts: Counts

    @classmethod
    def count(cls, title: str, classes: Sequence[str], labels: Labels, answers: Labels) -> Self:
        """Count answers, class indices, by the class that is true."""
        counts = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(counts, (labels, answers), 1)
        return cls(title, tuple(classes), counts)

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Each row over its sum; a class without images has zeros."""
        rows = self.counts.sum(axis=1, keepdims=True)
        shares: npt.NDArray[np.float64] = self.counts / np.maximum(rows, 1)
        return shares

    @property
    def top1(self) -> float:
        """Share of the images on the diagonal."""
        return float(np.trace(self.counts) / max(1, self.counts.sum()))

    def grouped(self, parts: LabelParts | None, level: str) -> Confusion:
        """Return how often each make, say, was taken for each.

        Raises:
            ConfigError: class names don't tell the level.
        """
        if parts is None or level not in parts.levels:
            there = ", ".join(parts.levels) if parts else "no make, model or year"
            raise ConfigError(
                f"--by {level!r}: class names tell {there}; --label-parts says how they are read"
            )
        group_of, names = parts.groups(level)
        counts = np.zeros((len(names), len(names)), np.int64)
        np.add.at(counts, (np.asarray(group_of)[:, None], np.asarray(group_of)), self.counts)
        return Confusion(f"{self.title}, by {level}", tuple(names), counts)

    def worst_block(self, size: int = BLOCK) -> list[int]:
        """Return the classes that are most confused with each other, in class order.

        Starts from the worst pair; each next class is the one most confused with those in the
        block. Ends early where no class left has been confused with them.
        """
        off = self.counts + self.counts.T
        np.fill_diagonal(off, 0)
        if not off.any():
            return []
        first, second = np.unravel_index(int(off.argmax()), off.shape)
        block = [int(first), int(second)]
        while len(block) < min(size, len(off)):
            ties = off[block].sum(axis=0)
            ties[block] = -1
            following = int(ties.argmax())
            if ties[following] < 1:
                rest = off.sum(axis=0)
                rest[block] = 0
                following = int(rest.argmax())
                if rest[following] < 1:
                    break
            block.append(following)
        return sorted(block)


def read_confusion(trial: TrialFolder, split: str = "val") -> Confusion:
    """Count a trial's predictions on `split` from its stored logits.

    Raises:
        ConfigError: the split is none of `SPLITS`.
        RecordError: the trial left no logits on it, or its study no labels.
    """
    _check_split(split)
    record = trial.record()
    study = StudyFolder(trial.path.parent.parent)
    labels, classes = study.labels(split), study.record().classes
    logits = read_logits(trial, record.name, split, len(labels), len(classes))
    if record.config.fold is not None and split == "val":
        raise RecordError(
            f"trial {record.name} left logits on {counted(len(logits), f'{split} image')}, its "
            f"study has {len(labels)}: it was judged on a fold"
        )
    if not len(labels):
        raise RecordError(f"study {record.study!r} has no {split} images to count")
    title = f"{record.name}, {record.config.backbone}: {counted(len(labels), f'{split} image')}"
    return Confusion.count(title, classes, labels, logits.argmax(axis=1))


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(
            f"--split {split!r} must be one of {', '.join(SPLITS)}; test is opened by "
            "`carray evaluate`, `errors`, `compare` and `ensemble`, which record it"
        )


@dataclass(frozen=True)
class ConfusionPicture:
    """A picture of a confusion matrix, and where it is."""

    picture: Path
    top1: float
    note: str
    """Where in the tracking store it is; "" where it was not put there."""


def draw_confusion(
    trial: str,
    *,
    split: str = "val",
    by: str | None = None,
    label_parts: str = AUTO,
    out: str | os.PathLike[str] | None = None,
    runs: str | os.PathLike[str] | None = None,
    track: bool = True,
) -> ConfusionPicture:
    """Draw a model's confusion matrix as one PNG, and put it beside a trial's run.

    Up to `MOST_LABELLED` classes have names and numbers; of more, first words (makes) are marked,
    and the classes most confused with each other are drawn again, enlarged, with both.

    Args:
        trial: `STUDY/NUMBER`, a trial's folder, or a package's name or folder.
        split: val or blend.
        by: `make`, `model` or another level that class names tell; None: by class.
        label_parts: how class names are read, as `carray.data.label_parts` takes it.
        out: a .png file; default: in the trial's, or the package's, folder.
        runs: the runs folder.
        track: put it beside the trial's run, where the tracking store has one.

    Raises:
        ConfigError: the split is none of `SPLITS`, or `out` is no .png file.
        RecordError: there is no such trial, or it left no logits on the split.
    """
    where = RunsFolder.at(runs)
    package = package_of(where, trial)
    folder = package or where.find_trial(trial).path
    name = f"confusion-{split}{f'-by-{by}' if by else ''}.png"
    file = Path(out).expanduser() if out else folder / name
    check_png(file)
    if package:
        found = _confusion_of_package(where, package, split)
    else:
        found = read_confusion(TrialFolder(folder), split)
    if by:
        found = found.grouped(read_label_parts(found.classes, label_parts), by)
    save_picture(found, file)
    if package or not track:
        return ConfusionPicture(file, found.top1, "")
    record = TrialFolder(folder).record()
    note = attach_or_warn(where, record.study, record.number, [file])
    return ConfusionPicture(file, found.top1, note)


def _confusion_of_package(where: RunsFolder, package: Path, split: str) -> Confusion:
    _check_split(split)
    found = find_held_model(where, str(package)).predictions(split)
    title = f"{found.model}: {counted(len(found.labels), f'{split} image')}"
    return Confusion.count(title, found.classes, found.labels, found.log_p.argmax(axis=1))


def save_picture(found: Confusion, file: Path) -> None:
    """Draw `found` and write it aside, then rename."""
    style: dict[str, Any] = {"font.size": 8, "text.color": INK, "axes.edgecolor": MUTED}
    family, classes = _letters(found.classes)
    style["font.family"] = family
    with plotting(style):
        save_png(_draw(replace(found, classes=classes)), file, dpi=150)


def _letters(classes: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
    """Return fonts that have the letters of all names, and the names.

    Where this machine has no such font, names in other scripts become `class 3`.
    """
    matplotlib()
    from matplotlib import font_manager

    usual = font_manager.get_font(font_manager.findfont(USUAL_FONT))

    def is_usual(name: str) -> bool:
        return all(usual.get_char_index(ord(letter)) for letter in name)

    if all(map(is_usual, classes)):
        return [USUAL_FONT], classes
    file = font_file()
    if file is None:
        names = (name if is_usual(name) else f"class {at}" for at, name in enumerate(classes))
        return [USUAL_FONT], tuple(names)
    font_manager.fontManager.addfont(str(file))
    return [USUAL_FONT, font_manager.FontProperties(fname=str(file)).get_name()], classes


def _draw(found: Confusion) -> Any:
    """Return the figure: both matrices, then the enlarged block or nothing, then the mistakes."""
    from matplotlib.figure import Figure

    named = len(found.classes) <= MOST_LABELLED
    side = 0.3 * len(found.classes) + 2.6 if named else 9.0
    side = max(side, 5.5)
    block = [] if named else found.worst_block()
    below = 0.42 * len(block) + 2.6 if block else 2.9
    figure = Figure(figsize=(2 * side, side + below + 0.6), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[side, below])
    every = list(range(len(found.classes)))
    for column, shares in enumerate((False, True)):
        axes = figure.add_subplot(grid[0, column])
        _matrix(axes, found, every, shares=shares, named=named)
    if block:
        axes = figure.add_subplot(grid[1, 0])
        _matrix(axes, found, block, shares=False, named=True)
        axes.set_title(f"The {len(block)} classes most confused with each other", loc="left")
        _mistakes(figure.add_subplot(grid[1, 1]), found, columns=1)
    else:
        _mistakes(figure.add_subplot(grid[1, :]), found, columns=2)
    figure.suptitle(
        f"{found.title}, top-1 {found.top1:.3f}", fontsize=13, fontweight="bold", x=0.01, ha="left"
    )
    return figure


def _matrix(axes: Any, found: Confusion, some: list[int], *, shares: bool, named: bool) -> None:
    """Draw the rows and columns of `some` classes: what is right in blue, mistakes in red."""
    from matplotlib.colors import PowerNorm

    values = (found.shares if shares else found.counts)[np.ix_(some, some)]
    right = np.eye(len(some), dtype=bool)
    for mask, colours in ((right, "Blues"), (~right, "Reds")):
        shown = np.ma.masked_where(~mask | (values == 0), values)
        top = max(float(values[mask].max(initial=0)), 1e-9) * 1.15
        axes.imshow(shown, cmap=colours, norm=PowerNorm(0.5, 0, top), interpolation="nearest")
    axes.set_title("Share of each true class, %" if shares else "Images", loc="left", fontsize=11)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.tick_params(length=0 if named else 3)
    if named:
        names = [_short(found.classes[number]) for number in some]
        axes.set_xticks(range(len(some)), names, rotation=90)
        axes.set_yticks(range(len(some)), names)
        axes.set_xticks(np.arange(-0.5, len(some)), minor=True)
        axes.set_yticks(np.arange(-0.5, len(some)), minor=True)
        axes.grid(which="minor", color=GRID, linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        _numbers(axes, values, shares)
    else:
        places, makes = _makes(found.classes)
        axes.set_xticks(places, makes, rotation=90)
        axes.set_yticks(places, makes)
        axes.grid(color=GRID, linewidth=0.4)


def _makes(classes: tuple[str, ...]) -> tuple[list[int], list[str]]:
    """Return where a new first word begins, and the words: makes, where classes are models."""
    words = [re.split(r"[\s_\-/]", name.strip())[0] for name in classes]
    starts = [at for at in range(len(words)) if at == 0 or words[at] != words[at - 1]]
    places: list[int] = []
    least = len(classes) / MOST_TICKS
    for at in starts:
        if not places or at - places[-1] >= least:
            places.append(at)
    return places, [_short(words[at]) for at in places]


def _numbers(axes: Any, values: npt.NDArray[Any], shares: bool) -> None:
    """Write every value but zero into its cell."""
    tops = {
        True: float(np.diag(values).max(initial=0)),
        False: float((values - np.diag(np.diag(values))).max(initial=0)),
    }
    for row, column in np.argwhere(values > 0):
        value = values[row, column]
        text = f"{100 * value:.0f}" if shares else f"{value}"
        dark = value > 0.4 * tops[bool(row == column)]
        colour = "white" if dark else INK
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)


def _mistakes(axes: Any, found: Confusion, columns: int) -> None:
    """List the most frequent mistakes in words, down the columns."""
    axes.set_axis_off()
    axes.set_title("Most frequent mistakes", loc="left", fontsize=11)
    off = found.counts.copy()
    np.fill_diagonal(off, 0)
    there = found.counts.sum(axis=1)
    lines = MOST_MISTAKES // columns
    for number, place in enumerate(np.argsort(-off, axis=None, kind="stable")[:MOST_MISTAKES]):
        true, taken = np.unravel_index(int(place), off.shape)
        if off[true, taken] == 0:
            break
        words = (
            f"{off[true, taken]} of {there[true]}   {_short(found.classes[true])}   taken for   "
            f"{_short(found.classes[taken])}"
        )
        column, line = divmod(number, lines)
        at = (column / columns, 1 - (line + 0.6) / lines)
        axes.text(*at, words, transform=axes.transAxes, fontsize=9, va="center")


def _short(name: str) -> str:
    return name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
