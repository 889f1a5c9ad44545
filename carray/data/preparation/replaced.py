"""A note where a data folder that is prepared anew held another data set."""

from __future__ import annotations

import logging

from carray.data.manifest import MANIFEST_FILE, Manifest
from carray.errors import DataError, counted

_logger = logging.getLogger(__name__)


def note_replaced(now: Manifest) -> None:
    """Warn where `now`, not written yet, is to take the place of another data set in its folder."""
    if not (now.folder / MANIFEST_FILE).exists():
        return
    try:
        before = Manifest.load(now.folder)
    except DataError:  # whatever it was, no trial can be of it
        return
    if before.hash == now.hash:
        return
    size = f"{len(before.included):,} images of {counted(len(before.classes), 'class')}"
    _logger.warning(
        f"{now.folder} held another data set until now, manifest {before.hash[:12]}, {size}: "
        f"trials of it are of other data than {now.hash[:12]}"
    )
