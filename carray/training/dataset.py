"""A trial's data: pixels, labels, and which rows it trains and is judged on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from carray.config import TrialConfig
from carray.data.manifest import Manifest
from carray.data.pixels.known_boxes import square_boxes
from carray.data.pixels.loader import Images
from carray.data.pixels.store import open_store
from carray.progress import silent
from carray.typing import Progress, Rows


@dataclass(frozen=True)
class TrialData:
    """Everything that a trial reads; row numbers are the manifest's."""

    images: Images
    classes: tuple[str, ...]
    manifest_hash: str
    train: Rows
    held: dict[str, Rows]
    """Rows of `val`, `blend` and `test` by split; a fold's held rows stand as `val`."""
    folder: str = ""
    """Where the data set lies; "" where nothing may be kept beside it."""
    budget_gib: float = 0.0
    """Disk that what is kept beside it may take."""


def open_data(folder: str, config: TrialConfig, progress: Progress = silent) -> TrialData:
    """Open the manifest and the pixel store, building the store on first use.

    Raises:
        DataError: the folder is no prepared data set, or a split or the fold is empty.
    """
    manifest = Manifest.load(folder)
    train, val = manifest.training_rows(config.fold)
    store = open_store(manifest, config.image_size, config.fit, progress)
    held = {"val": val, "blend": manifest.rows("blend"), "test": manifest.rows("test")}
    return TrialData(
        images=Images(
            store.pixels,
            np.asarray(manifest.labels, np.int64),
            square_boxes(manifest, config.fit),
        ),
        classes=tuple(manifest.classes),
        manifest_hash=manifest.hash,
        train=train,
        held={split: rows for split, rows in held.items() if len(rows)},
        folder=str(manifest.folder),
        budget_gib=manifest.settings.store_budget_gib,
    )
