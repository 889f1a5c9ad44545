"""What a data folder holds: images per class and split, and what is left out and why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel

from carray.data.manifest import SPLITS, Manifest
from carray.data.pixels.decode import UnreadableImage, read_square

SAMPLE = 100  # images that are looked at
BARS = 8  # of the histogram, at most
IMBALANCED = 3.0  # images of the largest class over those of the smallest


class ClassCount(BaseModel):
    """Images of one class."""

    name: str
    splits: dict[str, int]
    """Split -> images."""
    total: int
    excluded: int


class Exclusion(BaseModel):
    """One image that nothing uses."""

    image_id: str
    label: str
    reason: str


class ClassStatistics(BaseModel):
    """How many images classes have, all splits together."""

    mean: float
    median: float
    smallest: int
    """Images of the class that has fewest."""
    largest: int
    ratio: float
    """The largest over the smallest, in training; infinity where a class has no training image."""
    histogram: list[tuple[int, int, int]]
    """(from, to, classes): how many classes have that many images, both ends included."""

    @property
    def is_imbalanced(self) -> bool:
        """Say whether rare classes want attention."""
        return self.ratio >= IMBALANCED


class ImageStatistics(BaseModel):
    """What the images are like; each is (the least, the median, the most)."""

    width: tuple[int, float, int]
    height: tuple[int, float, int]
    """In pixels, of the whole images."""
    aspect: tuple[float, float, float]
    """Width over height."""
    brightness: tuple[float, float, float] | None
    """The mean of an image's pixels, from 0 to 1, of the sample; None where no image is at hand."""
    sample: int
    """Images that brightness is of."""


class DataSummary(BaseModel):
    """A data folder in numbers; what `carray data show --json` prints."""

    folder: str
    hash: str
    source: str
    kind: str
    crop: str
    images: int
    """Included ones."""
    splits: dict[str, int]
    source_splits: tuple[str, ...]
    """The splits that the source brought."""
    folds: int
    near_duplicate_groups: int
    """Groups of two or more included images, near-duplicates or boxes of one file; each is in one
    split and one fold."""
    classes: list[ClassCount]
    class_statistics: ClassStatistics
    image_statistics: ImageStatistics | None = None
    excluded: list[Exclusion]
    excluded_by_reason: dict[str, int]
    merged: dict[str, str]
    reading: str = ""
    """Which columns of a table were taken for what."""
    notes: tuple[str, ...]


def summarise(manifest: Manifest, *, look: bool = False) -> DataSummary:
    """Return the numbers of a data folder; to `look` is to open some images."""
    out = manifest.images[manifest.images["excluded"] != ""]
    columns = (out["image_id"], out["label"], out["excluded"])
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    settings = manifest.settings
    classes = _class_counts(manifest, Counter(label for _, label, _ in rows))
    return DataSummary(
        folder=manifest.where,
        hash=manifest.hash,
        source=settings.source,
        kind=settings.kind,
        crop=settings.crop,
        images=len(manifest.included),
        splits={name: len(manifest.rows(name)) for name in SPLITS},
        source_splits=settings.source_splits,
        folds=settings.folds,
        near_duplicate_groups=int((manifest.included["group"].value_counts() > 1).sum()),
        classes=classes,
        class_statistics=class_statistics(classes),
        image_statistics=image_statistics(manifest) if look else None,
        excluded=[Exclusion(image_id=i, label=label, reason=why) for i, label, why in rows],
        excluded_by_reason=dict(Counter(why.partition(":")[0] for _, _, why in rows)),
        merged=settings.merge,
        reading=settings.reading,
        notes=settings.notes,
    )


def class_statistics(classes: Sequence[ClassCount]) -> ClassStatistics:
    """Return the statistics of classes, of which there is at least one."""
    totals = np.array([one.total for one in classes])
    trained = np.array([one.splits["train"] for one in classes])
    width = max(1, -(-int(np.ptp(totals) + 1) // BARS))
    lows = range(int(totals.min()), int(totals.max()) + 1, width)
    bars = [
        (low, low + width - 1, int(((totals >= low) & (totals < low + width)).sum()))
        for low in lows
    ]
    return ClassStatistics(
        mean=float(totals.mean()),
        median=float(np.median(totals)),
        smallest=int(totals.min()),
        largest=int(totals.max()),
        ratio=float(trained.max() / trained.min()) if trained.min() else math.inf,
        histogram=bars,
    )


def image_statistics(manifest: Manifest, seed: int = 0) -> ImageStatistics:
    """Return how large the included images are, and of `SAMPLE` of them how bright."""
    table = manifest.included
    width, height = table["width"].to_numpy(), table["height"].to_numpy()
    chosen = table.sample(min(SAMPLE, len(table)), random_state=seed)
    means = [each for _, row in chosen.iterrows() if (each := _brightness(row)) is not None]
    return ImageStatistics(
        width=_ends(width),
        height=_ends(height),
        aspect=_ends(width / np.maximum(height, 1)),
        brightness=_ends(np.array(means)) if means else None,
        sample=len(means),
    )


def _ends(values: npt.NDArray[Any]) -> tuple[Any, float, Any]:
    return values.min().item(), float(np.median(values)), values.max().item()


def _brightness(row: pd.Series) -> float | None:
    try:
        return float(read_square(Path(row["path"]).read_bytes(), 32, "squash").mean()) / 255
    except (OSError, UnreadableImage):
        return None


def _class_counts(manifest: Manifest, excluded: Counter[str]) -> list[ClassCount]:
    table = manifest.class_counts()
    counts = zip(table.index.tolist(), table.to_numpy().tolist(), strict=True)
    return [
        ClassCount(
            name=name,
            splits=dict(zip(SPLITS, row, strict=True)),
            total=sum(row),
            excluded=excluded[name],
        )
        for name, row in counts
    ]
