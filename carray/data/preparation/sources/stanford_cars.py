"""Stanford Cars as published: images, `cars_meta.mat` and the annotations with their boxes.

Krause et al., "3D Object Representations for Fine-Grained Categorization", 3DRR 2013.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from carray.data.pixels.decode import Box
from carray.data.preparation.sources.listing import Listing, SourceImage, nfc, ordered_unique
from carray.errors import DataError

META = "cars_meta.mat"
TRAIN = "cars_train_annos.mat"
TEST = ("cars_test_annos_withlabels.mat", "cars_test_annos.mat")  # the first one found is used
DEPTH = 3  # folders below the source that are searched for the files


def is_devkit(source: Path) -> bool:
    """Say whether `cars_meta.mat` is in `source` or a little below."""
    return _find_file(source, META) is not None


def list_devkit(source: Path) -> Listing:
    """List Stanford Cars; its test split is kept, and left out where it has no labels.

    Raises:
        DataError: a file or the images are missing, or the files hold something else.
    """
    meta, train = _required(source, META), _required(source, TRAIN)
    classes = _class_names(meta)
    source_images = _list_split(source, train, "train", classes)
    test = next((found for name in TEST if (found := _find_file(source, name))), None)
    notes = []
    if test is None:
        notes.append(f"no {TEST[1]}: the source brings no test split")
    elif "class" not in _annotations(test).dtype.names:
        notes.append(
            f"{test.name} has no labels, so its images were left out: "
            f"put {TEST[0]} beside it to test on them"
        )
    else:
        source_images += _list_split(source, test, "test", classes)
    return Listing("devkit", source, ordered_unique(source_images), classes, tuple(notes))


def _list_split(
    source: Path, annotations: Path, split: str, classes: tuple[str, ...]
) -> list[SourceImage]:
    folder = _image_folder(source, f"cars_{split}")
    return [
        _source_image(row, folder, source, split, classes)
        for row in _annotations(annotations).ravel()
    ]


def _source_image(
    row: Any, folder: Path, source: Path, split: str, classes: tuple[str, ...]
) -> SourceImage:
    name = str(np.asarray(row["fname"]).item())
    number = int(np.asarray(row["class"]).item())
    if not 1 <= number <= len(classes):
        raise DataError(f"{name} has class {number}, {META} names 1 to {len(classes)}")
    x1, y1, x2, y2 = (
        int(np.asarray(row[f"bbox_{side}"]).item()) for side in ("x1", "y1", "x2", "y2")
    )
    box: Box = (max(0, x1 - 1), max(0, y1 - 1), x2, y2)  # theirs count from 1 and include the last
    path = folder / name
    problem = "" if path.exists() else "no such file"
    image_id = path.relative_to(source).as_posix()
    return SourceImage(image_id, path, classes[number - 1], split, box, problem)


def _class_names(meta: Path) -> tuple[str, ...]:
    names = _load(meta, "class_names").ravel()
    return tuple(nfc(str(np.asarray(name).item())) for name in names)


def _annotations(path: Path) -> Any:
    rows = _load(path, "annotations")
    needed = {"fname", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"}
    if not needed <= set(rows.dtype.names or ()):
        raise DataError(
            f"{path} isn't Stanford Cars': its rows have no {', '.join(sorted(needed))}"
        )
    return rows


def _load(path: Path, name: str) -> Any:
    from scipy.io import loadmat

    try:
        return loadmat(path)[name]
    except Exception as error:
        raise DataError(f"{path} can't be read as Stanford Cars' ({error!r})") from None


def _required(source: Path, name: str) -> Path:
    found = _find_file(source, name)
    if found is None:
        raise DataError(f"{source} has no {name}: it comes with the devkit of Stanford Cars")
    return found


def _find_file(source: Path, name: str) -> Path | None:
    """Return the file of this name that is nearest below `source`."""
    for depth in range(DEPTH):
        for found in sorted(source.glob("*/" * depth + name)):
            return found
    return None


def _image_folder(source: Path, name: str) -> Path:
    """Return the folder `name` that holds images itself; archives nest it in one of its name."""
    for depth in range(DEPTH):
        for folder in sorted(source.glob("*/" * depth + name)):
            if next(folder.glob("*.jpg"), None):
                return folder
    raise DataError(f"{source} has no folder {name} with .jpg images")
