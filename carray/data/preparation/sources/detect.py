"""Tell which reader a source needs."""

from __future__ import annotations

from pathlib import Path

from carray.data.preparation.sources.folder import ARCHIVES, list_folder
from carray.data.preparation.sources.listing import Listing
from carray.data.preparation.sources.stanford_cars import (
    is_devkit,
    is_one_file,
    list_devkit,
    list_one_file,
)
from carray.data.preparation.sources.table import TableOptions, list_table
from carray.data.preparation.sources.table_file import TABLE_SUFFIXES
from carray.errors import Complaints, DataError

SHEETS = (".xlsx", ".xls", ".ods", ".numbers", ".json", ".parquet")

UNPACK = {".zip": "unzip", ".7z": "7z x", ".rar": "unrar x"}


def list_source(
    source: Path,
    images: Path | None = None,
    id_column: str | None = None,
    label_column: str | None = None,
    level: int | None = None,
    split_words: str | None = None,
    faults: Complaints | None = None,
) -> Listing:
    """List a CSV, Stanford Cars, or an image folder.

    `faults` hears what is to be mended although the source could be listed; None refuses it here.

    Raises:
        DataError: there is no such source, it is none of these, or something in it is to be mended.
    """
    if not source.exists():
        raise DataError(f"there is no {source}: give an image folder, a CSV, or Stanford Cars")
    complaints = Complaints()
    with complaints.heard():
        if level is not None and (level < 1 or source.is_file()):
            raise DataError(
                f"--level {level} must be a number from 1 and goes with an image folder"
            )
    with complaints.heard():
        if not source.is_file() and (images or id_column or label_column or split_words):
            raise DataError(f"--images and the columns go with a CSV, but {source} is a folder")
    with complaints.heard():
        listing = _listed(source, TableOptions(images, id_column, label_column, split_words), level)
    complaints.refuse()
    (complaints if faults is None else faults).add(listing.faults)
    complaints.refuse()
    return listing


def _listed(source: Path, options: TableOptions, level: int | None) -> Listing:
    """List a source by the reader of its kind."""
    if source.is_file():
        if (kind := source.suffix.lower()) in ARCHIVES:
            how = UNPACK.get(kind, "tar -xf")
            raise DataError(
                f"{source} is an archive: unpack it ({how} {source.name}) and give the folder"
            )
        if kind not in TABLE_SUFFIXES:
            cure = ": save the table as CSV" if kind in SHEETS else ""
            raise DataError(f"{source} is no folder and no CSV{cure}")
        return list_table(source.resolve(), options)
    source = source.resolve()
    if is_devkit(source):
        return list_devkit(source)
    return list_one_file(source) if is_one_file(source) else list_folder(source, level)
