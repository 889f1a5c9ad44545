"""What `predict` is pointed at: models by name or folder, images by file, folder or CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from carray.data.pixels.decode import IMAGE_SUFFIXES, Box
from carray.errors import DataError, RecordError, did_you_mean
from carray.files import recover_folders, recovered
from carray.inference.package import packages, write_version
from carray.inference.versions import find_version
from carray.records import StudyFolder
from carray.runs_folder import RunsFolder

BOX_COLUMNS = tuple(
    tuple(f"{prefix}{edge}" for edge in ("x1", "y1", "x2", "y2"))
    for prefix in ("box_", "bbox_", "")
)
PATH_COLUMNS = ("path", "image", "image_path", "file", "filename", "file_name", "id", "image_id")

_Image = tuple[Path, str, Box | None]


def find_package(runs: RunsFolder, model: str) -> Path:
    """Return the folder of a package: a path, a name under `runs`, or a trial packaged now.

    A name alone stands for its newest version, `NAME@1` for the first.

    Raises:
        RecordError: there is no such model; the nearest name is told.
    """
    if (recovered(Path(model)) / "card.json").exists():
        return Path(model).resolve()
    recover_folders(runs.models)
    if found := find_version(runs.models, model):
        return found
    if "/" in model or (Path(model) / "record.json").exists():
        return _package_trial(runs, model)
    names = [package.name for package in packages(runs)]
    raise RecordError(
        f"there is no model {model!r} under {runs.models}{did_you_mean(model, names)}; give a "
        "package's name or folder, or a trial as STUDY/NUMBER"
    )


def _package_trial(runs: RunsFolder, name: str) -> Path:
    """Package a single trial as a version of `STUDY-NUMBER` under `runs`."""
    trial = runs.find_trial(name)
    record = trial.record()
    own = {"name": record.study, "manifest_hash": record.manifest_hash}
    study = StudyFolder(trial.path.parent.parent).record().model_copy(update=own)
    return write_version(runs.models, f"{record.study}-{record.number:04d}", study, [trial])


@dataclass(frozen=True)
class ImageList:
    """Images to predict: files, the names that the user knows them by, boxes if a CSV has any."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    boxes: tuple[Box | None, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, places: Sequence[int]) -> ImageList:
        """Return the images at `places`, in that order."""
        return ImageList(
            tuple(self.paths[place] for place in places),
            tuple(self.names[place] for place in places),
            tuple(self.boxes[place] for place in places),
        )


def find_images(sources: Sequence[str | Path]) -> ImageList:
    """Return the images of files, folders (searched whole) and CSV files, in order.

    A CSV has a column of paths, relative to its own folder: one of `PATH_COLUMNS`, else its first;
    and may have one of `BOX_COLUMNS`.

    Raises:
        DataError: a source doesn't exist, or none holds an image.
    """
    found = [image for source in sources for image in _images_of(Path(source))]
    if not found:
        where = ", ".join(str(source) for source in sources) or "nothing"
        raise DataError(f"no image in {where}: give image files, folders or a CSV of paths")
    paths, names, boxes = zip(*found, strict=True)
    return ImageList(paths, names, boxes)


def _images_of(source: Path) -> Iterable[_Image]:
    if source.is_dir():
        from carray.data.preparation.sources.listing import (
            walk_images,  # not sooner: pandas comes with it
        )

        files = sorted(walk_images(source)[0])
        return [(file, file.relative_to(source).as_posix(), None) for file in files]
    if not source.exists():
        raise DataError(f"there is no image, folder or CSV at {source}")
    if source.suffix.lower() == ".csv":
        rows = read_csv(source)
        columns = list(rows[0]) if rows else []
        column = path_column(columns)
        box = next((known for known in BOX_COLUMNS if set(known) <= set(columns)), None)
        return [(_beside(source, row[column]), row[column], _box(row, box)) for row in rows]
    return [(source, source.name, None)]


def _box(row: dict[str, str], columns: tuple[str, ...] | None) -> Box | None:
    """Return a row's box, None where it has none."""
    if columns is None or not all(row[column].strip() for column in columns):
        return None
    try:
        x1, y1, x2, y2 = (round(float(row[column])) for column in columns)
    except (ValueError, OverflowError):
        return None
    return (x1, y1, x2, y2) if x1 >= 0 else None


def _beside(csv_file: Path, name: str) -> Path:
    """Return the file that a CSV names; without an ending, the image that has that stem."""
    path = csv_file.parent / name
    if path.suffix.lower() not in IMAGE_SUFFIXES and not path.exists():
        found = sorted(path.parent.glob(f"{escape(path.name)}.*"))
        images = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES]
        return images[0] if images else path
    return path


def path_column(columns: Sequence[str]) -> str:
    """Return the column that holds paths: a known name, else the first."""
    known = [column for column in columns if column.strip().lower() in PATH_COLUMNS]
    return (known or list(columns) or ["path"])[0]


def read_csv(file: Path) -> list[dict[str, str]]:
    """Read a CSV with a header; a byte-order mark is dropped.

    Raises:
        DataError: it can't be read as UTF-8 text with a header.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            return [
                {key: value or "" for key, value in row.items() if key is not None}
                for row in csv.DictReader(opened)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} can't be read as a CSV ({error}): save it as UTF-8") from None
