"""Submissions: one class an image, or one probability column a class, as a sample has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carray.data.preparation.sources.columns import ID_NAMES
from carray.data.preparation.sources.listing import nfc
from carray.data.preparation.sources.table_file import read_table
from carray.errors import DataError, counted, did_you_mean, some_of
from carray.inference.inputs import ImageList

if TYPE_CHECKING:
    from carray.inference.predictor import Predictions

Row = dict[str, str]
CATEGORY_COLUMNS = ("Id", "Category")  # as Kaggle's car competitions have them
MAX_NAMED = 3


@dataclass(frozen=True)
class Sample:
    """What a sample submission asks for."""

    file: Path
    identity: str
    """The column of ids."""
    columns: tuple[str, ...]
    """The others: one category, or a class each."""
    ids: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> Sample:
        """Read a sample submission.

        Raises:
            DataError: it has fewer than two columns, or no rows.
        """
        table = read_table(file)
        columns = table.columns if table.rows and table.has_header else ()
        if len(columns) < 2:
            raise DataError(
                f"the sample submission {file} must have an id column and at least one more, such "
                "as Id,Category, or Id and one column a class"
            )
        known = [column for column in columns if column.lower() in ID_NAMES]
        identity = (*known, columns[0])[0]
        others = tuple(column for column in columns if column != identity)
        return cls(file, identity, others, tuple(table.cells(identity)))

    def matched(self, found: ImageList) -> ImageList:
        """Return the images of the sample's ids, with or without file ending, in its order.

        Raises:
            DataError: an id has no image, or may be one of several.
        """
        whole: dict[str, dict[Path, int]] = {}  # what a name stands for: files, and their places
        last: dict[str, dict[Path, int]] = {}
        for place, (path, name) in enumerate(zip(found.paths, found.names, strict=True)):
            for known in (name, str(Path(name).with_suffix(""))):
                whole.setdefault(nfc(known), {})[path] = place
            for known in (path.name, path.stem):
                last.setdefault(nfc(known), {})[path] = place
        known_as = {own: whole.get(nfc(own)) or last.get(nfc(own)) or {} for own in self.ids}
        missing = [own for own in self.ids if not known_as[own]]
        if missing:
            raise DataError(
                f"no image is there for {len(missing)} of {counted(len(self.ids), 'id')} of "
                f"{self.file}, the first is {missing[0]!r}: give the folder that holds them"
            )
        several = [own for own in self.ids if len(known_as[own]) > 1]
        if several:
            named = " and ".join(map(str, list(known_as[several[0]])[:2]))
            raise DataError(
                f"{counted(len(several), 'id')} of {self.file} may be several images, the first is "
                f"{several[0]!r} ({named}): give only the folder that is meant"
            )
        places = [next(iter(known_as[own].values())) for own in self.ids]
        return replace(found.take(places), names=self.ids)


def class_columns(
    columns: Sequence[str], classes: Sequence[str], merge: Mapping[str, str], sample: Path
) -> dict[str, tuple[int, float]]:
    """Return {column: (class index, share of its probability)}, in the sample's order.

    A column may bear the name that a class had before it was merged: the columns of one class
    share its probability evenly, so that rows still add up to one.

    Raises:
        DataError: a column is no class, or a class has no column; both sides are named.
    """
    index = {name: place for place, name in enumerate(classes)}
    becomes = {column: merge.get(column, column) for column in columns}
    unknown = [column for column, name in becomes.items() if name not in index]
    if unknown:
        known = (*classes, *merge)
        raise DataError(
            f"{sample} has columns for {some_of(list(map(repr, unknown)), MAX_NAMED)}, which "
            f"are no classes of the model{did_you_mean(unknown[0], known)}; it knows "
            f"{len(classes)} classes, the sample {len(columns)}"
        )
    missing = [name for name in classes if name not in becomes.values()]
    if missing:
        raise DataError(
            f"{sample} has no column for {', '.join(map(repr, missing[:MAX_NAMED]))}: the model "
            f"knows {len(classes)} classes, the sample {len(columns)}"
        )
    sharing = Counter(becomes.values())
    return {column: (index[name], 1 / sharing[name]) for column, name in becomes.items()}


def _check_ids(found: ImageList) -> None:
    """Refuse images that would share a row's id.

    Raises:
        DataError: two do; both files are named.
    """
    first: dict[str, Path] = {}
    for name, path in zip(found.names, found.paths, strict=True):
        other = first.setdefault(name, path)
        if other != path:
            raise DataError(
                f"{other} and {path} would both be the row {name!r} of a submission: give the "
                "folder above them, whose names are told apart, or a --sample with its ids"
            )


def probability_rows(
    found: ImageList,
    predicted: Predictions,
    identity: str,
    columns: Mapping[str, tuple[int, float]],
) -> list[Row]:
    """Return one row an image; an unreadable one gets the mean of the others."""
    _check_ids(found)
    places, shares = zip(*columns.values(), strict=True)
    p_NC = predicted.probabilities.astype(np.float64)
    known = dict(zip(predicted.places, p_NC, strict=True))
    fallback = p_NC.mean(axis=0) if len(p_NC) else np.full(p_NC.shape[1], 1 / p_NC.shape[1])
    rows = []
    for place, name in enumerate(found.names):
        p = known.get(place, fallback)[list(places)] * shares
        cells = {column: f"{value:.8f}" for column, value in zip(columns, p, strict=True)}
        rows.append({identity: name, **cells})
    return rows


def category_rows(
    found: ImageList, predicted: Predictions, classes: Sequence[str], columns: Sequence[str]
) -> list[Row]:
    """Return one row an image; an unreadable one gets the likeliest class of the others."""
    _check_ids(found)
    picks = predicted.probabilities.argmax(axis=1)
    fallback = int(np.bincount(picks, minlength=len(classes)).argmax())
    known = dict(zip(predicted.places, picks.tolist(), strict=True))
    identity, category = columns
    return [
        {identity: name, category: classes[known.get(place, fallback)]}
        for place, name in enumerate(found.names)
    ]
