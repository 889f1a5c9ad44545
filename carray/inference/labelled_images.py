"""New labelled images: a folder of class folders, or a table, in a model's own classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carray.data.preparation.sources.detect import list_source
from carray.data.preparation.sources.listing import Listing, SourceImage, nfc
from carray.errors import DataError, counted, did_you_mean, some_of
from carray.inference.inputs import ImageList
from carray.typing import Labels


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images that can be judged, and what was left out."""

    images: ImageList
    labels: Labels
    """Of each image, into the model's classes."""
    notes: tuple[str, ...]


def read_labelled_images(
    source: Path,
    classes: Sequence[str],
    merge: Mapping[str, str],
    split: str | None = None,
    label_column: str | None = None,
) -> LabelledImages:
    """Read labelled images as `carray data prepare` does, without preparing them.

    A class may be written with blanks for `_`, or under the name that it had before it was merged;
    images of classes that the model doesn't know are left out, and told.

    Raises:
        DataError: there is no such source, it can be read in two ways, none of its classes is the
            model's, or it has no such split.
    """
    listing = list_source(source, label_column=label_column)
    usable = [one for one in listing.source_images if not one.problem and one.label]
    chosen = [one for one in usable if split in (None, one.split)]
    if not chosen:
        there = ", ".join(sorted({one.split for one in usable} - {""})) or "no splits"
        raise DataError(f"{source} has no images of split {split!r}; it has {there}")
    place_of = _places(classes, merge)
    known = [one for one in chosen if _key(one.label) in place_of]
    if not known:
        name = chosen[0].label
        raise DataError(
            f"none of the classes of {source}, such as {name!r}, is one of the model's "
            f"{len(classes)}{did_you_mean(name, classes)}: name folders or labels as those are"
        )
    images = ImageList(
        tuple(one.path for one in known),
        tuple(one.image_id for one in known),
        tuple(one.box for one in known),
    )
    labels = np.array([place_of[_key(one.label)] for one in known], np.int64)
    return LabelledImages(images, labels, _notes(listing, chosen, known, split))


def _places(classes: Sequence[str], merge: Mapping[str, str]) -> dict[str, int]:
    """Return the class index of every spelling."""
    place_of = {_key(name): place for place, name in enumerate(classes)}
    return {**{_key(old): place_of[_key(new)] for old, new in merge.items()}, **place_of}


def _key(name: str) -> str:
    return nfc(name).replace("_", " ").strip().casefold()


def _notes(
    listing: Listing,
    chosen: Sequence[SourceImage],
    known: Sequence[SourceImage],
    split: str | None,
) -> tuple[str, ...]:
    notes = [f"read: {listing.reading}"] if listing.reading else []
    notes += listing.notes
    strange = sorted({one.label for one in chosen} - {one.label for one in known})
    if strange:
        notes.append(
            f"{counted(len(chosen) - len(known), 'image was', 'images were')} left out, of classes "
            f"that the model doesn't know: {some_of(strange)}"
        )
    if broken := [one for one in listing.source_images if one.problem or not one.label]:
        why = broken[0].problem or "no label"
        notes.append(
            f"{counted(len(broken), 'image was', 'images were')} left out, the first is "
            f"{broken[0].image_id}: {why}"
        )
    splits = Counter(one.split for one in chosen if one.split)
    if split is None and len(splits) > 1:
        counts = ", ".join(f"{name} {count}" for name, count in splits.items())
        notes.append(f"images of all its splits ({counts}): --split takes one")
    return tuple(notes)
