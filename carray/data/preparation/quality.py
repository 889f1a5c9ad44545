"""Find what is wrong before anything trains: conflicts, duplicates, leaks between splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from carray.data.preparation.near_duplicates import near_duplicate_groups
from carray.data.preparation.scan_cache import ImageScan
from carray.data.preparation.second_look import same_picture
from carray.data.preparation.sources import SourceImage
from carray.progress import silent
from carray.typing import Progress, Rows

PRIORITY = {"test": 3, "val": 2, "blend": 1, "train": 0, "": 0}  # the split whose copy is kept

BY_HAND = "left out:"  # begins what a person excluded, or asked to be


@dataclass(frozen=True)
class LabelledImage:
    """One image between its listing and the manifest."""

    source_image: SourceImage
    label: str
    """After merging."""
    seen: ImageScan
    excluded: str = ""
    """`kind: reason`, "" while it stays."""

    @property
    def image_id(self) -> str:
        """The source_image's id."""
        return self.source_image.image_id

    @property
    def split(self) -> str:
        """The source's split."""
        return self.source_image.split


def exclude_conflicts(images: Sequence[LabelledImage], crop: bool) -> list[LabelledImage]:
    """Exclude what has one content under two labels, and all but one of equal content.

    Of equals the copy in `test` stays, then that in `val`; with `crop` two boxes of one file are
    two contents.
    """
    out = list(images)
    for rows in _by_content(images, crop):
        labels = sorted({images[row].label for row in rows})
        if len(labels) > 1:
            named = " and ".join(repr(label) for label in labels)
            if not crop and len({images[row].source_image.box for row in rows} - {None}) > 1:
                named += "; --crop box tells its boxes apart"
            for row in rows:
                out[row] = replace(out[row], excluded=f"conflict: one content under {named}")
            continue
        kept = _best(rows, images)
        for row in rows:
            if row != kept:
                out[row] = replace(out[row], excluded=_copy(images[row], images[kept], "same"))
    return out


def exclude_small_classes(
    images: Sequence[LabelledImage], least: int, notes: list[str]
) -> list[LabelledImage]:
    """Leave out classes with fewer than `least` images that are still there, and say which."""
    counts = dict.fromkeys((one.label for one in images if one.label), 0)
    counts |= Counter(one.label for one in images if not one.excluded)
    small = sorted(name for name, count in counts.items() if count < least)
    if small:
        notes.append(f"classes with fewer than {least} images were left out: {', '.join(small)}")
    why = f"{BY_HAND} its class has fewer than {least} images"
    return [
        replace(one, excluded=f"{why}; {one.excluded}" if one.excluded else why)
        if one.label in small and not one.excluded.startswith(BY_HAND)
        else one
        for one in images
    ]


def exclude_leaks(images: Sequence[LabelledImage], groups: Rows) -> list[LabelledImage]:
    """Exclude the train side of groups that straddle the source's own splits."""
    out = list(images)
    for rows in _by_group(images, groups):
        kept = _best(rows, images)
        for row in rows:
            if PRIORITY[images[row].split] < PRIORITY[images[kept].split]:
                out[row] = replace(out[row], excluded=_copy(images[row], images[kept], "near"))
    return out


def group_images(
    images: Sequence[LabelledImage], crop: bool = False, progress: Progress = silent
) -> Rows:
    """Return the near-duplicate group of each image; excluded ones stand alone.

    Suspected pairs are looked at again, the files laid over each other; with `crop` their boxes.
    """
    blank = ImageScan()

    def look(one: int, other: int, mirrored: bool) -> bool:
        first, second = images[one], images[other]
        files = [
            (each.source_image.path, each.source_image.box if crop else None)
            for each in (first, second)
        ]
        differ = first.label != second.label
        return same_picture(*files, mirrored=mirrored, labels_differ=differ)

    seen = [blank if one.excluded else one.seen for one in images]
    return near_duplicate_groups(seen, look, progress)


def with_whole_files(images: Sequence[LabelledImage], groups: Rows) -> Rows:
    """Return the groups, joined where images are cut from one file; excluded ones stand alone."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names = [str(row) if one.excluded else one.seen.content_hash for row, one in enumerate(images)]
    files = np.unique(names, return_inverse=True)[1] + len(images)  # numbers past the groups'
    links = coo_array((np.ones(len(images)), (groups, files)), shape=(2 * len(images),) * 2)
    joined: Rows = connected_components(links, directed=False)[1][groups].astype(np.int64)
    return joined


def near_pairs_of(
    images: Sequence[LabelledImage], groups: Rows
) -> list[tuple[LabelledImage, LabelledImage]]:
    """Return the first image of each group with each of the others."""
    return [
        (images[rows[0]], images[row]) for rows in _by_group(images, groups) for row in rows[1:]
    ]


def suspected_labels(images: Sequence[LabelledImage], groups: Rows) -> list[str]:
    """Say which near-duplicates bear two labels: one of them is perhaps wrong."""
    suspected = []
    for rows in _by_group(images, groups):
        first = images[rows[0]]
        other = next((images[row] for row in rows if images[row].label != first.label), None)
        if other is not None:
            suspected.append(
                f"{first.image_id} ({first.label}) and {other.image_id} ({other.label}) are "
                "near-duplicates under two labels: one is perhaps wrong"
            )
    return suspected


def _copy(image: LabelledImage, kept: LabelledImage, how: str) -> str:
    what = "same content as" if how == "same" else "near-duplicate of"
    if how == "near" and image.seen.content_hash == kept.seen.content_hash:
        what = "cut from one file with"
    if PRIORITY[image.split] == PRIORITY[kept.split]:
        return f"duplicate: {what} {kept.image_id}"
    return f"leak: {what} {kept.image_id} in {kept.split}"


def _best(rows: Iterable[int], images: Sequence[LabelledImage]) -> int:
    return max(rows, key=lambda row: (PRIORITY[images[row].split], -row))


def _by_content(images: Sequence[LabelledImage], crop: bool) -> list[list[int]]:
    rows: dict[object, list[int]] = defaultdict(list)
    for row, one in enumerate(images):
        if not one.excluded:
            rows[one.seen.content_hash, one.source_image.box if crop else None].append(row)
    return [same for same in rows.values() if len(same) > 1]


def _by_group(images: Sequence[LabelledImage], groups: Rows) -> list[list[int]]:
    rows: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups.tolist()):
        if not images[row].excluded:
            rows[group].append(row)
    return [near for near in rows.values() if len(near) > 1]
