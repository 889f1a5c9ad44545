"""What `predict` is pointed at: models by name or folder, images by file, folder or CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from carray.data.decode import IMAGE_SUFFIXES
from carray.ensemble.package import write_package
from carray.errors import DataError, RecordError, did_you_mean
from carray.records import RunsFolder, StudyFolder

PATH_COLUMNS = ("path", "image", "image_path", "file", "filename", "file_name", "id", "image_id")


def find_package(runs: RunsFolder, model: str) -> Path:
    """Return the folder of a package: a path, a name under `runs`, or a trial packaged now.

    Raises:
        RecordError: there is no such model; the nearest name is told.
    """
    if (Path(model) / "card.json").exists():
        return Path(model).resolve()
    if (runs.models / model / "card.json").exists():
        return runs.models / model
    if "/" in model or (Path(model) / "record.json").exists():
        return _package_trial(runs, model)
    names = [card.parent.name for card in runs.models.glob("*/card.json")]
    raise RecordError(
        f"there is no model {model!r} under {runs.models}{did_you_mean(model, names)}; give a "
        "package's name or folder, or a trial as STUDY/NUMBER"
    )


def _package_trial(runs: RunsFolder, name: str) -> Path:
    """Package a single trial as `STUDY-NUMBER` under `runs`."""
    trial = runs.find_trial(name)
    record = trial.record()
    study = StudyFolder(trial.path.parent.parent).record()
    folder = runs.models / f"{record.study}-{record.number:04d}"
    write_package(
        folder,
        [trial],
        (1.0,),
        classes=study.classes,
        study=record.study,
        manifest_hash=record.manifest_hash,
    )
    return folder


@dataclass(frozen=True)
class ImageList:
    """Images to predict: files, and the name that the user knows each by."""

    paths: tuple[Path, ...]
    names: tuple[str, ...]


def find_images(sources: Sequence[str | Path]) -> ImageList:
    """Return the images of files, folders (searched whole) and CSV files, in order.

    A CSV has a column of paths, relative to its own folder: one of `PATH_COLUMNS`, else its first.

    Raises:
        DataError: a source doesn't exist, or none holds an image.
    """
    pairs = [pair for source in sources for pair in _images_of(Path(source))]
    if not pairs:
        where = ", ".join(str(source) for source in sources) or "nothing"
        raise DataError(f"no image in {where}: give image files, folders or a CSV of paths")
    return ImageList(tuple(path for path, _ in pairs), tuple(name for _, name in pairs))


def _images_of(source: Path) -> Iterable[tuple[Path, str]]:
    if source.is_dir():
        files = sorted(f for f in source.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
        return [(file, file.relative_to(source).as_posix()) for file in files]
    if not source.exists():
        raise DataError(f"there is no image, folder or CSV at {source}")
    if source.suffix.lower() == ".csv":
        rows = read_csv(source)
        column = path_column(list(rows[0]) if rows else [])
        return [(_beside(source, row[column]), row[column]) for row in rows]
    return [(source, source.name)]


def _beside(csv_file: Path, name: str) -> Path:
    """Return the file that a CSV names; without an ending, the image that has that stem."""
    path = csv_file.parent / name
    if path.suffix.lower() not in IMAGE_SUFFIXES and not path.exists():
        found = sorted(path.parent.glob(f"{path.name}.*"))
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
