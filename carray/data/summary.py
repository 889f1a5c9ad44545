"""What a data folder holds: images per class and split, and what is left out and why."""

from __future__ import annotations

from collections import Counter

from pydantic import BaseModel

from carray.data.manifest import SPLITS, Manifest


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
    excluded: list[Exclusion]
    excluded_by_reason: dict[str, int]
    merged: dict[str, str]
    reading: str = ""
    """Which columns of a table were taken for what."""
    notes: tuple[str, ...]


def summarise(manifest: Manifest) -> DataSummary:
    """Return the numbers of a data folder."""
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
        excluded=[Exclusion(image_id=i, label=label, reason=why) for i, label, why in rows],
        excluded_by_reason=dict(Counter(why.partition(":")[0] for _, _, why in rows)),
        merged=settings.merge,
        reading=settings.reading,
        notes=settings.notes,
    )


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
