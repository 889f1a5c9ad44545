"""Tell which reader a source needs."""

from __future__ import annotations

from pathlib import Path

from carray.data.preparation.sources.folder import list_folder
from carray.data.preparation.sources.listing import Listing
from carray.data.preparation.sources.stanford_cars import is_devkit, list_devkit
from carray.data.preparation.sources.table import list_table
from carray.errors import DataError

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")


def list_source(
    source: Path,
    images: Path | None = None,
    id_column: str | None = None,
    label_column: str | None = None,
) -> Listing:
    """List a CSV, Stanford Cars, or an image folder.

    Raises:
        DataError: there is no such source, or it is none of these.
    """
    if not source.exists():
        raise DataError(f"there is no {source}: give an image folder, a CSV, or Stanford Cars")
    if source.is_file():
        if source.suffix.lower() not in TABLE_SUFFIXES:
            raise DataError(f"{source} is no folder and no CSV")
        return list_table(source.resolve(), images, id_column, label_column)
    if images or id_column or label_column:
        raise DataError(f"--images and the columns go with a CSV, but {source} is a folder")
    source = source.resolve()
    return list_devkit(source) if is_devkit(source) else list_folder(source)
