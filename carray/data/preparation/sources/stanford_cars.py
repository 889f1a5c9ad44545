"""Stanford Cars as published: images, `cars_meta.mat` and the annotations with their boxes.

Krause et al., "3D Object Representations for Fine-Grained Categorization", 3DRR 2013.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from carray.data.pixels.decode import Box
from carray.data.preparation.sources.listing import Listing, SourceImage, nfc, ordered_unique
from carray.errors import Complaints, DataError

META = "cars_meta.mat"
TRAIN = "cars_train_annos.mat"
TEST = ("cars_test_annos_withlabels.mat", "cars_test_annos.mat")  # the first one found is used
ALL = "cars_annos.mat"  # the older form: all images in `car_ims`, classes and test flag inside
DEPTH = 3  # folders below the source that are searched for the files


def is_devkit(source: Path) -> bool:
    """Say whether `cars_meta.mat` is in `source` or a little below."""
    return _find_file(source, META) is not None


def list_devkit(source: Path) -> Listing:
    """List Stanford Cars; its test split is kept, and left out where it has no labels.

    Raises:
        DataError: a file or the images are missing, or the files hold something else.
    """
    complaints = Complaints()
    with complaints.heard():
        meta = _required(source, META)
        classes = _class_names(meta)
    with complaints.heard():
        train = _required(source, TRAIN)
        _annotations(train)
    with complaints.heard():
        _image_folder(source, "cars_train")
    complaints.refuse()
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


def is_one_file(source: Path) -> bool:
    """Say whether the source is the older form: `cars_annos.mat` and the images that it names."""
    return not is_devkit(source) and _find_file(source, ALL) is not None


def list_one_file(source: Path) -> Listing:
    """List `car_ims` by `cars_annos.mat`, with its boxes, classes and test split.

    Raises:
        DataError: no image that the file names is there, or it holds something else.
    """
    file = _required(source, ALL)
    classes = _class_names(file)
    rows = _load(file, "annotations").ravel()
    if not {"relative_im_path", "class", "test", *_EDGES} <= set(rows.dtype.names or ()):
        raise DataError(f"{file} isn't Stanford Cars': its rows name no image, class, box and test")
    paths = [file.parent / str(np.asarray(row["relative_im_path"]).item()) for row in rows]
    if not any(path.exists() for path in paths):
        raise DataError(
            f"{file} names images such as {paths[0].relative_to(file.parent)}, and none of them is "
            f"there: put car_ims beside it; cars_train and cars_test need {META} and {TRAIN}"
        )
    found = [
        _listed(row, path, source, "test" if np.asarray(row["test"]).item() else "train", classes)
        for row, path in zip(rows, paths, strict=True)
    ]
    return Listing("one-file devkit", source, ordered_unique(found), classes)


_EDGES = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


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
    path = folder / str(np.asarray(row["fname"]).item())
    return _listed(row, path, source, split, classes)


def _listed(
    row: Any, path: Path, source: Path, split: str, classes: tuple[str, ...]
) -> SourceImage:
    name = path.name
    number = int(np.asarray(row["class"]).item())
    if not 1 <= number <= len(classes):
        raise DataError(f"{name} has class {number}, {META} names 1 to {len(classes)}")
    x1, y1, x2, y2 = (
        int(np.asarray(row[f"bbox_{side}"]).item()) for side in ("x1", "y1", "x2", "y2")
    )
    box: Box = (max(0, x1 - 1), max(0, y1 - 1), x2, y2)  # theirs count from 1 and include the last
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
