"""What `predict` is pointed at: models by name or folder, images by file, folder or CSV."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from carray.data.pixels.decode import Box
from carray.data.preparation.sources.columns import (
    box_columns,
    boxes_of,
    id_columns,
    image_column,
    is_of_files,
    reading_sentence,
)
from carray.data.preparation.sources.image_finder import ImageFinder
from carray.data.preparation.sources.listing import walk_images
from carray.data.preparation.sources.table_file import TABLE_SUFFIXES, Table, read_table
from carray.errors import DataError, RecordError, counted, did_you_mean
from carray.files import recover_folders, recovered
from carray.inference.package import packages, write_version
from carray.inference.versions import find_version
from carray.records import StudyFolder
from carray.runs_folder import RunsFolder

_Image = tuple[Path, str, Box | None]


def find_package(runs: RunsFolder, model: str) -> Path:
    """Return the folder of a package: a path, a name under `runs`, or a trial packaged now.

    A name alone stands for its newest version, `NAME@1` for the first.

    Raises:
        RecordError: there is no such model; the nearest name is told.
    """
    found = _package_or_trial(runs, model)
    return runs.whole(found) if found else _package_trial(runs, model)


def check_model(runs: RunsFolder, model: str) -> None:
    """Refuse, before anything slow, what names neither a package nor a trial, as `find_package`."""
    if _package_or_trial(runs, model) is None:
        runs.find_trial(model)


def _package_or_trial(runs: RunsFolder, model: str) -> Path | None:
    """Return the folder of a package; None of what can only be a trial's name."""
    recover_folders(runs.models)
    found = package_of(runs, model)
    if (
        found is None
        and "/" not in model.rstrip("/")
        and not (Path(model) / "record.json").exists()
    ):
        raise unknown_model(runs, model)
    return found


def package_of(runs: RunsFolder, model: str) -> Path | None:
    """Return the folder of a package, by its path or name; None of anything else."""
    if (recovered(Path(model)) / "card.json").exists():
        return Path(model).resolve()
    return find_version(runs.models, model)


def runs_of(package: Path, runs: str | os.PathLike[str] | None) -> RunsFolder:
    """Return the runs folder of a package: the one asked for, else the one that it lies in."""
    own = package.parents[1]
    is_in_one = package.parent.name == "models" and (own / "studies").is_dir()
    return RunsFolder.at(own if runs is None and is_in_one else runs)


def is_study(runs: RunsFolder, name: str) -> bool:
    """Say whether a name is a study's and no model package's."""
    if "/" in name or package_of(runs, name):
        return False
    return runs.study(name).record_file.exists()


def unknown_model(runs: RunsFolder, model: str) -> RecordError:
    """Return the error that nothing of this name predicts."""
    names = [package.name for package in packages(runs)]
    return RecordError(
        f"there is no model {model!r} under {runs.shown}/models{did_you_mean(model, names)}; give "
        "a package's name or folder, or a trial as STUDY/NUMBER"
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
    readings: tuple[str, ...] = ()
    """Which columns of tables were taken for what."""

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, places: Sequence[int]) -> ImageList:
        """Return the images at `places`, in that order."""
        return ImageList(
            tuple(self.paths[place] for place in places),
            tuple(self.names[place] for place in places),
            tuple(self.boxes[place] for place in places),
            self.readings,
        )


def find_images(sources: Sequence[str | Path]) -> ImageList:
    """Return the images of files, folders (searched whole) and tables, in order.

    A table has a column of image names, as `carray data prepare` reads it, from its own folder on;
    and may have one of boxes. A list of names needs no header. Files that would bear one name are
    named by their paths.

    Raises:
        DataError: a source doesn't exist, none holds an image, or a table can be read in two ways.
    """
    readings: list[str] = []
    found = [image for source in sources for image in _images_of(Path(source), readings)]
    if not found:
        where = ", ".join(str(source) for source in sources) or "nothing"
        raise DataError(f"no image in {where}: give image files, folders or a CSV of paths")
    paths, names, boxes = zip(*_told_apart(found), strict=True)
    return ImageList(paths, names, boxes, tuple(readings))


def _told_apart(found: Sequence[_Image]) -> list[_Image]:
    """Name by their paths the files that would bear one name: `a/1.jpg` and `b/1.jpg`."""
    bearers: dict[str, set[Path]] = {}
    for path, name, _ in found:
        bearers.setdefault(name, set()).add(path)
    return [
        (path, name if len(bearers[name]) == 1 else path.as_posix(), box)
        for path, name, box in found
    ]


def _images_of(source: Path, readings: list[str]) -> Iterable[_Image]:
    if source.is_dir():
        files = sorted(walk_images(source)[0])
        return [(file, file.relative_to(source).as_posix(), None) for file in files]
    if not source.exists():
        raise DataError(f"there is no image, folder or CSV at {source}")
    if source.suffix.lower() in TABLE_SUFFIXES:
        return _images_of_table(source, readings)
    return [(source, source.name, None)]


def _images_of_table(source: Path, readings: list[str]) -> Iterable[_Image]:
    """Return the images that a table names; what was taken for what is added to `readings`."""
    table = read_table(source)
    finder = ImageFinder(source.parent.resolve(), anywhere=True)
    if len(table.columns) == 1:
        table = _with_first_line(table, finder)
    known = id_columns(table) or any(is_of_files(table, name) for name in table.columns)
    asked = None if known else table.columns[0]
    column, found = image_column(table, finder, asked, cure="keep one of the two")
    names = table.cells(column)
    _refuse_several(source, found.several(names))
    box = box_columns(table)
    columns = reading_sentence(table, {"images": [column], "boxes": box})
    readings.append(f"{source.name}: {columns}{found.sentence(finder.folder)}")
    return list(zip(found.paths, names, boxes_of(table, box), strict=True))


def _with_first_line(table: Table, finder: ImageFinder) -> Table:
    """Return a table of one column with its first line as a row, if it names an image too."""
    [first] = table.columns
    if not table.has_header or id_columns(table) or not finder.find_all([first]).num_found:
        return table
    return replace(table, columns=("column 1",), rows=((first,), *table.rows), has_header=False)


def _refuse_several(source: Path, names: Sequence[str]) -> None:
    if names:
        raise DataError(
            f"{counted(len(names), 'name')} in {source} may be several images, the first is "
            f"{names[0]!r}: write their paths from {source.parent} on"
        )
