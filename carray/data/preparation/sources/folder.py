"""Image folders: a folder per class, perhaps below `train`, `val` and `test`."""

from __future__ import annotations

from pathlib import Path

from carray.data.preparation.sources.listing import (
    SPLIT_NAMES,
    Listing,
    SourceImage,
    class_name,
    nfc,
    ordered_unique,
    visible_folders,
    walk_images,
)
from carray.errors import DataError


def list_folder(source: Path) -> Listing:
    """List `source/CLASS/...` or `source/SPLIT/CLASS/...`.

    Raises:
        DataError: there is no class folder, or one holds no image.
    """
    by_split = {path: SPLIT_NAMES.get(path.name.lower()) for path in visible_folders(source)}
    if "train" not in by_split.values():
        source_images, notes = _list_classes(source, source, "")
        return Listing("folder", source, ordered_unique(source_images), notes=tuple(notes))
    source_images, notes = [], []
    for folder, split in by_split.items():
        if split is None:
            notes.append(f"{folder.name}/ is no split and was passed by")
            continue
        found, told = _list_classes(source, folder, split)
        source_images += found
        notes += told
    return Listing("split folder", source, ordered_unique(source_images), notes=tuple(notes))


def _list_classes(source: Path, folder: Path, split: str) -> tuple[list[SourceImage], list[str]]:
    """List the class folders in `folder`; ids are paths below `source`."""
    source_images: list[SourceImage] = []
    empty: list[str] = []
    passed_by = 0
    for class_folder in visible_folders(folder):
        images, others = walk_images(class_folder)
        passed_by += others
        label = class_name(class_folder.name)
        source_images += [
            SourceImage(nfc(path.relative_to(source).as_posix()), path, label, split)
            for path in images
        ]
        if not images:
            empty.append(class_folder.relative_to(source).as_posix())
    if empty:
        named = ", ".join(repr(name) for name in empty[:8])
        more = f" and {len(empty) - 8} more" if len(empty) > 8 else ""
        raise DataError(
            f"the class folder {named}{more} in {source} holds no image: fill or remove it"
        )
    if not source_images:
        raise DataError(
            f"{folder} holds no class folders with images: give a folder per class, a CSV, or "
            "Stanford Cars with its .mat files"
        )
    kinds = [f"{passed_by} files in {folder} are no images and were passed by"] if passed_by else []
    return source_images, kinds
