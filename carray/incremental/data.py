"""Adds a class to a prepared data set: splits its images, and samples those of the old classes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from carray.data.manifest import Manifest, check_overwritable
from carray.data.preparation import quality
from carray.data.preparation.prepare import candidate_rows
from carray.data.preparation.quality import LabelledImage
from carray.data.preparation.scan import scan_images
from carray.data.preparation.sources.listing import SourceImage, nfc, walk_images
from carray.data.preparation.splits import require_images, split_stratified
from carray.errors import DataError
from carray.progress import silent
from carray.typing import Progress

VAL_SHARE, TEST_SHARE = 0.15, 0.25
NOT_REPLAYED = "not replayed"
KNOWN = "duplicate: in the data set already"


def extend_manifest(
    manifest: Manifest,
    images: Path | str,
    name: str,
    out: Path | str,
    *,
    replay: int | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Manifest:
    """Write a data folder with the classes of `manifest` and, after them, the class `name`.

    Args:
        manifest: the data set so far; its held splits stay whole.
        images: a folder, searched whole, of the new class's images.
        name: the new class.
        out: the data folder to write.
        replay: training images of each old class that are kept; None keeps as many as the new
            class has.
        seed: of the new class's cut and of what is replayed.
        progress: shows how far the reading is.

    Raises:
        DataError: the class exists, or has too few images; nothing is written then.
    """
    name = nfc(name.strip())
    if not name or name in manifest.classes:
        raise DataError(
            f"the class {name!r} exists already in {manifest.folder}: give the new class another "
            "name"
            if name
            else "the new class needs a name"
        )
    if replay is not None and replay < 1:
        raise DataError(f"--replay {replay} must be at least 1: old classes would be forgotten")
    folder = Path(out).resolve()
    check_overwritable(folder)
    parts = [split for split in ("train", "val", "test") if len(manifest.rows(split))]
    new = _new_rows(manifest, Path(images), name, parts, seed, progress)
    count = int((new["split"] == "train").sum())
    old = _rehearsal_rows(manifest, count if replay is None else replay, seed)
    table = pd.concat([old, new], ignore_index=True)
    settings = manifest.settings.model_copy(
        update={
            "source": f"{manifest.settings.source} and {Path(images).resolve()}",
            "images_folder_relative": "",
            "folds": 0,
            "seed": seed,
            "notes": (
                f"the class {name!r} was added; at most so many training images of each "
                f"other class are replayed: {count if replay is None else replay}",
            ),
        }
    )
    extended = Manifest.make(folder, (*manifest.classes, name), table, settings)
    extended.write()
    return extended


def _new_rows(
    manifest: Manifest, images: Path, name: str, parts: list[str], seed: int, progress: Progress
) -> pd.DataFrame:
    """Return the new class's rows, split; near-duplicates never straddle two splits."""
    candidates = _scan(manifest, images, name, progress)
    groups = quality.group_images(candidates)
    usable = np.array([not one.excluded for one in candidates])
    labels = np.zeros(int(usable.sum()), np.int64)
    reasons = Counter(one.excluded for one in candidates if one.excluded)
    left_out = {0: "; ".join(f"{count} left out as {why}" for why, count in reasons.items())}
    what, cure = "the splits of the new class", f"add images of it to {images}"
    elsewhere = left_out if reasons else {}
    require_images(labels, groups[usable], (name,), parts, what, elsewhere, cure)
    shares = {"val": VAL_SHARE, "test": TEST_SHARE}
    held = {part: shares[part] for part in parts if part in shares}
    cut = split_stratified(labels, groups[usable], {"train": 1 - sum(held.values()), **held}, seed)
    splits = np.full(len(candidates), "", object)
    splits[usable] = cut
    first = int(manifest.images["group"].max()) + 1
    table = candidate_rows(candidates, groups + first, {name: len(manifest.classes)})
    table["split"] = splits
    return table


def _scan(manifest: Manifest, images: Path, name: str, progress: Progress) -> list[LabelledImage]:
    if not images.is_dir():
        raise DataError(f"there is no folder of images at {images}")
    files, _ = walk_images(images)
    if not files:
        raise DataError(f"no image in {images}: the new class needs some")
    known = set(manifest.images["content_hash"]) - {""}
    candidates = []
    for file, seen in zip(
        files, scan_images(files, [None] * len(files), 0.0, progress), strict=True
    ):
        identity = nfc(f"added/{name}/{file.relative_to(images).as_posix()}")
        why = f"unreadable: {seen.problem}" if seen.problem else ""
        why = why or (KNOWN if seen.content_hash in known else "")
        known.add(seen.content_hash)
        candidates.append(
            LabelledImage(SourceImage(identity, file.resolve(), name), name, seen, why)
        )
    return candidates


def _rehearsal_rows(manifest: Manifest, most: int, seed: int) -> pd.DataFrame:
    """Return the old rows; of each class at most `most` training images stay in."""
    table = manifest.images.copy()
    table["fold"] = -1
    trains = ((table["split"] == "train") & (table["excluded"] == "")).to_numpy()
    classes = table["class_index"].to_numpy(np.int64)
    numbers = np.random.default_rng(seed)
    excluded = table["excluded"].to_numpy(object).copy()
    for own in range(len(manifest.classes)):
        rows = numbers.permutation(np.flatnonzero(trains & (classes == own)))
        excluded[rows[most:]] = NOT_REPLAYED
    table["excluded"] = excluded
    table.loc[table["excluded"] == NOT_REPLAYED, "split"] = ""
    return table
