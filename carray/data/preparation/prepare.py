"""`prepare`: a source of labelled images to a data folder, and all that is wrong with it, now."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from carray.data.manifest import (
    BOX_COLUMNS,
    STORE_BUDGET_GIB,
    Crop,
    Manifest,
    PrepareSettings,
    check_overwritable,
)
from carray.data.preparation import quality
from carray.data.preparation.pair_sheet import PAIR_SHEET, write_pair_sheet
from carray.data.preparation.quality import LabelledImage
from carray.data.preparation.replaced import note_replaced
from carray.data.preparation.scan import scan_images
from carray.data.preparation.scan_cache import ImageScan, cache_path
from carray.data.preparation.sources import Listing, SourceImage, list_source
from carray.data.preparation.sources.listing import natural_key
from carray.data.preparation.splits import SplitFractions, assign_splits, check_sizes
from carray.data.preparation.user_lists import match_names, read_merge, read_names
from carray.errors import Complaints, DataError, counted, some_of
from carray.progress import silent
from carray.typing import Progress, Rows

NEAR_DUPLICATES = ("off", "report", "exclude")
CROPS = get_args(Crop)
MAX_EXAMPLES = 4  # of images that were left out, in a refusal
MAX_NOTED = 10  # suspected labels that the notes name before they count the rest


def prepare(
    source: Path | str,
    out: Path | str,
    *,
    images: Path | str | None = None,
    id_column: str | None = None,
    label_column: str | None = None,
    level: int | None = None,
    split_words: str | None = None,
    min_images: int = 0,
    near_duplicates: str = "exclude",
    crop: Crop = "none",
    margin: float = 0.1,
    exclude: Path | str | None = None,
    merge: Path | str | None = None,
    val_size: float = 0.15,
    blend_size: float = 0.1,
    test_size: float = 0.15,
    folds: int = 0,
    seed: int = 0,
    store_budget_gib: float = STORE_BUDGET_GIB,
    progress: Progress = silent,
) -> Manifest:
    """Read a source, find its flaws, split it, and write a data folder.

    A source is an image folder (`CLASS/...`, or `train/CLASS/...` beside `val` and `test`), a CSV
    with an id and a label per row, or Stanford Cars with its `.mat` files. Splits that the source
    brings are kept; the others are cut, stratified, from its training images. Near-duplicates,
    and boxes of one file, never straddle two splits or folds.

    Args:
        source: image folder, CSV, or the folder of Stanford Cars.
        out: the data folder to write.
        images: a CSV's image folder; its own folder if None.
        id_column: a CSV's column of ids; the usual names are known.
        label_column: a CSV's column of labels, or several that make one together: `make,model`;
            the usual names are known.
        level: how many levels of folders name a class; the first if None.
        split_words: what the words of a CSV's column of splits stand for: `0=train,1=val,2=test`.
        min_images: classes with fewer images are left out.
        near_duplicates: `exclude` leaves out the copies of test and val images in the source's
            own splits, `report` only keeps copies in one split, `off` doesn't look for them.
        crop: `box` cuts images to their boxes, where they have one.
        margin: what a crop box grows, as a share of its sides, on each side.
        exclude: file of images to leave out: a name per line, or a CSV with a column of ids.
        merge: file of classes that are one: YAML `name: [a, b]` or CSV `name,a,b`.
        val_size: share of the images to be split that goes to `val`; 0 for none.
        blend_size: the same for `blend`; there is none where it would be too small.
        test_size: the same for `test`.
        folds: cut the train split into so many folds; 0 for none.
        seed: of the cut.
        store_budget_gib: disk that pixel stores of this data set may take.
        progress: shows how far the reading is.

    Raises:
        DataError: the source can't be used, with the reason; no data folder is written then. What
            was read of the images is kept beside it, as after an interrupt: the next call goes on.
    """
    folder = Path(out).resolve()
    shares = SplitFractions(val_size, blend_size, test_size, folds, seed)
    options = Complaints()  # what is refused before any image is opened
    with options.heard():
        shares.check()
    shares_are_sound = not options
    with options.heard():
        _check_options(near_duplicates, crop, margin, store_budget_gib)
    complaints = Complaints()
    with options.heard():
        listing = list_source(
            Path(source),
            Path(images) if images else None,
            id_column,
            label_column,
            level,
            split_words,
            faults=complaints,
        )
        notes = list(listing.notes)
        with options.heard():
            _check_outside(folder, listing)
            check_overwritable(folder)
        with options.heard():
            notes += _checked_boxes(listing, source) if crop == "box" else []
        left_out: set[str] = set()
        with options.heard():
            left_out = _excluded_ids(listing, Path(exclude) if exclude else None, notes)
        with options.heard():
            labels_of = _merged(listing, Path(merge) if merge else None)
            if options and shares_are_sound:
                with complaints.heard():
                    _check_listed_sizes(listing, labels_of, left_out, min_images, shares)
    if options:
        options.add(complaints.errors)
        options.refuse()
    log = cache_path(folder)
    candidates = _scan(listing, labels_of, left_out, crop, margin, log, progress)
    candidates = quality.exclude_conflicts(candidates, crop == "box")
    candidates = quality.exclude_small_classes(candidates, min_images, notes)
    near = np.arange(len(candidates))
    if near_duplicates != "off":
        near = quality.group_images(candidates, crop == "box", progress)
    groups = quality.with_whole_files(candidates, near)
    pairs = quality.near_pairs_of(candidates, near)
    if near_duplicates != "report":
        candidates = quality.exclude_leaks(candidates, groups)
    _note_flaws(candidates, near, notes)
    if pairs:
        notes.append(
            f"{counted(len(pairs), 'near-duplicate')} side by side, to judge: {folder / PAIR_SHEET}"
        )

    with complaints.heard():
        classes = _class_order(listing, candidates)
        if gone := sorted({one.label for one in candidates if one.label} - set(classes)):
            named = ", ".join(gone)
            notes.append(f"no classes any more, as all their images were left out: {named}")
        notes += _similar_class_names(classes)
        index = {name: number for number, name in enumerate(classes)}
        table = candidate_rows(candidates, groups, index)
        brought = _split(table, classes, shares, notes, candidates)
    complaints.refuse()
    settings = PrepareSettings(
        source=str(Path(source).resolve()),
        kind=listing.kind,
        images_folder=str(listing.images_folder),
        images_folder_relative=os.path.relpath(listing.images_folder, folder),
        crop=crop,
        margin=margin if crop == "box" else 0.0,
        merge={old: new for old, new in labels_of.items() if old != new},
        val=val_size,
        blend=blend_size,
        test=test_size,
        source_splits=brought,
        folds=folds,
        seed=seed,
        reading=listing.reading,
        notes=tuple(notes),
        store_budget_gib=store_budget_gib,
    )
    manifest = Manifest.make(folder, classes, table, settings)
    note_replaced(manifest)
    manifest.write()
    write_pair_sheet(folder, pairs)
    log.unlink()
    return manifest


def _check_options(near_duplicates: str, crop: str, margin: float, store_budget_gib: float) -> None:
    complaints = Complaints()
    with complaints.heard():
        if near_duplicates not in NEAR_DUPLICATES:
            raise DataError(f"--near-duplicates {near_duplicates!r} must be off, report or exclude")
    with complaints.heard():
        if crop not in CROPS:
            raise DataError(f"--crop {crop!r} must be none or box")
    with complaints.heard():
        if not 0 <= margin < float("inf"):
            raise DataError(f"--margin {margin:g} must be a number from 0")
    with complaints.heard():
        if not 0 < store_budget_gib < float("inf"):
            raise DataError(f"--store-budget {store_budget_gib:g} must be a number above 0, in GiB")
    complaints.refuse()


def _check_listed_sizes(
    listing: Listing,
    labels_of: Mapping[str, str],
    left_out: Set[str],
    min_images: int,
    shares: SplitFractions,
) -> None:
    """Refuse classes that are too small even if every listed image can be used.

    Raises:
        DataError: names them.
    """
    listed = [
        one
        for one in listing.source_images
        if one.label and not one.problem and one.image_id not in left_out
    ]
    counts = Counter(labels_of[one.label] for one in listed)
    classes = sorted((name for name in counts if counts[name] >= min_images), key=natural_key)
    index = {name: number for number, name in enumerate(classes)}
    kept = [one for one in listed if labels_of[one.label] in index]
    labels = np.array([index[labels_of[one.label]] for one in kept], np.int64)
    own = np.array([one.split for one in kept], object)
    check_sizes(labels, np.arange(len(kept)), own, classes, shares)


def _split(
    table: pd.DataFrame,
    classes: Sequence[str],
    shares: SplitFractions,
    notes: list[str],
    candidates: Sequence[LabelledImage],
) -> tuple[str, ...]:
    """Fill in `split` and `fold`, and return the splits that the source brought; a refusal says
    what was left out, and which classes may be one."""
    try:
        return assign_splits(table, classes, shares, notes)
    except DataError as error:
        alike = "".join(f"; {note}" for note in _similar_class_names(classes))
        raise DataError(f"{error}{_exclusion_summary(candidates)}{alike}") from None


def _check_outside(out: Path, listing: Listing) -> None:
    if listing.kind.endswith("folder") and out.is_relative_to(listing.images_folder):
        raise DataError(f"--out {out} is inside the source: its files would be read as a class")


def _checked_boxes(listing: Listing, source: Path | str) -> list[str]:
    """Return a note on the images without a box; raises DataError where boxes can't be used."""
    boxes = [one.box for one in listing.source_images if one.box]
    if not boxes:
        why = listing.odd_boxes or "a CSV's are its columns x1, y1, x2, y2, in pixels"
        needed = f"--crop box needs boxes, and {source} has none to use ({why})"
        raise DataError(f"{needed}: give it some, or drop --crop")
    if max(max(box) for box in boxes) <= 1:
        raise DataError(
            f"the boxes of {source} are shares of the images' sides, pixels are needed: multiply "
            "them by width and height"
        )
    bare = [one.image_id for one in listing.source_images if not one.box and not one.problem]
    stay = counted(len(bare), "image stays", "images stay")
    return [f"{stay} whole for want of a box, as {bare[0]}"] if bare else []


def _similar_class_names(classes: Sequence[str]) -> list[str]:
    """Name the classes that differ only by case or blanks."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault(" ".join(name.casefold().split()), []).append(repr(name))
    return [
        f"{' and '.join(names)} differ only by case or blanks: --merge them if they are one class"
        for names in alike.values()
        if len(names) > 1
    ]


def _merged(listing: Listing, merge: Path | None) -> dict[str, str]:
    """Return {label in the source: class}."""
    labels = {one.label for one in listing.source_images}
    merged = read_merge(merge, labels) if merge else {}
    return {label: merged.get(label, label) for label in labels}


def _excluded_ids(listing: Listing, exclude: Path | None, notes: list[str]) -> set[str]:
    """Return the ids that a person excludes; names that match none are noted."""
    if exclude is None:
        return set()
    matched, unknown = match_names(read_names(exclude), listing.source_images)
    if unknown:
        named = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        counts = counted(len(unknown), "name of --exclude matches", "names of --exclude match")
        notes.append(f"{counts} no image: {named}")
    return matched


def _scan(
    listing: Listing,
    labels_of: dict[str, str],
    left_out: set[str],
    crop: Crop,
    margin: float,
    log: Path,
    progress: Progress,
) -> list[LabelledImage]:
    """Scan every image that is still wanted; say why the others aren't."""
    excluded = [_known_problem(one, left_out) for one in listing.source_images]
    wanted = [one for one, why in zip(listing.source_images, excluded, strict=True) if not why]
    boxes = [one.box if crop == "box" else None for one in wanted]
    found = iter(scan_images([one.path for one in wanted], boxes, margin, progress, log))
    candidates = []
    for one, why in zip(listing.source_images, excluded, strict=True):
        seen = ImageScan() if why else next(found)
        why = why or (f"unreadable: {seen.problem}" if seen.problem else "")
        candidates.append(LabelledImage(one, labels_of[one.label], seen, why))
    return candidates


def _known_problem(one: SourceImage, left_out: set[str]) -> str:
    if one.image_id in left_out:
        return "left out: named in --exclude"
    return f"missing: {one.problem}" if one.problem else ""


def _exclusion_summary(candidates: Sequence[LabelledImage]) -> str:
    """Return " (left out: 3 conflict, ...)", with an example of each; "" where no image was."""
    out = [one for one in candidates if one.excluded]
    if not out:
        return ""
    kinds = Counter(one.excluded.partition(":")[0] for one in out)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    examples: dict[str, str] = {}  # of a missing one it matters why it counts as missing
    for one in out:
        kind = one.excluded if one.excluded.startswith("missing") else one.excluded.split(":")[0]
        examples.setdefault(kind, f"{one.image_id}: {one.excluded}")
    return f" (left out: {counts}; {some_of(list(examples.values()), MAX_EXAMPLES)})"


def _note_flaws(candidates: Sequence[LabelledImage], near: Rows, notes: list[str]) -> None:
    leaks = sum(one.excluded.startswith("leak") for one in candidates)
    if leaks:
        notes.append(
            f"{counted(leaks, 'image leaks', 'images leak')} between the source's own splits "
            "(near-duplicates, or cut from one file); the copies nearest to test were kept"
        )
    suspected = quality.suspected_labels(candidates, near)
    notes += suspected[:MAX_NOTED]
    if len(suspected) > MAX_NOTED:
        more = counted(
            len(suspected) - MAX_NOTED, "more near-duplicate bears", "more near-duplicates bear"
        )
        notes.append(f"{more} two labels")


def _class_order(listing: Listing, candidates: Sequence[LabelledImage]) -> tuple[str, ...]:
    """Return the classes in the source's order, else as people sort; those that were
    left out as a whole aren't there, but a class whose images are all flawed is found and named."""
    labels = {
        one.label
        for one in candidates
        if one.label and not one.excluded.startswith(quality.BY_HAND)
    }
    if len(labels) < 2:
        left = f"only the class {', '.join(labels)!r}" if labels else "no class left"
        why = _exclusion_summary(candidates)
        raise DataError(f"there is {left}: at least 2 are needed{why}")
    own = [name for name in listing.class_order if name in labels]
    return tuple(own + sorted(labels - set(own), key=natural_key))


def candidate_rows(
    candidates: Sequence[LabelledImage], groups: Rows, index: Mapping[str, int]
) -> pd.DataFrame:
    """Return the manifest's rows; `split` is still the source's, `fold` none.

    `index` is {class: its number}.
    """
    boxes = [one.source_image.box or (-1, -1, -1, -1) for one in candidates]
    columns: dict[str, object] = {
        "image_id": [one.image_id for one in candidates],
        "path": [str(one.source_image.path) for one in candidates],
        "label": [one.label for one in candidates],
        "class_index": [index.get(one.label, -1) for one in candidates],
        "split": ["" if one.excluded else one.split for one in candidates],
        "fold": -1,
        "content_hash": [one.seen.content_hash for one in candidates],
        "perceptual_hash": [one.seen.perceptual_hash for one in candidates],
        "group": groups,
        "width": [one.seen.width for one in candidates],
        "height": [one.seen.height for one in candidates],
        "excluded": [one.excluded for one in candidates],
    }
    for column, name in enumerate(BOX_COLUMNS):
        columns[name] = [box[column] for box in boxes]
    return pd.DataFrame(columns)
