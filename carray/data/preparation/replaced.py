"""What data set a data folder holds that is to be prepared anew, and a note where it is lost."""

from __future__ import annotations

import logging
from pathlib import Path

from carray.data.manifest import MANIFEST_FILE, Manifest
from carray.errors import DataError, counted

_logger = logging.getLogger(__name__)


def held_before(folder: Path) -> Manifest | None:
    """Return the data set that `folder` holds; None where it holds none that can be read."""
    if not (folder / MANIFEST_FILE).exists():
        return None
    try:
        return Manifest.load(folder)
    except DataError:
        return None


def note_replaced(before: Manifest | None, now: Manifest) -> None:
    """Warn that another data set took the place of `before`; the same one is passed over."""
    if before is None or before.hash == now.hash:
        return
    size = f"{len(before.included):,} images of {counted(len(before.classes), 'class')}"
    _logger.warning(
        f"{now.folder} held another data set until now, manifest {before.hash[:12]}, {size}: "
        f"trials of it are of other data than {now.hash[:12]}"
    )
