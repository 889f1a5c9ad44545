"""What is asked of the splits, and a table of images cut so, beside what its source brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from carray.data.manifest import SPLITS, Rows
from carray.data.splits import (
    MAX_NAMED,
    blend_problem,
    cut_folds,
    cut_stratified,
    require_images,
)
from carray.errors import DataError


@dataclass(frozen=True)
class Shares:
    """What is asked of the splits: shares of the images that the source leaves to be split."""

    val: float
    blend: float
    test: float
    folds: int
    seed: int

    def check(self) -> None:
        """Refuse shares that can't be; raises DataError."""
        for name in ("val", "blend", "test"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise DataError(f"--{name} {share:g} must be at least 0 and below 1")
        if self.val + self.blend + self.test >= 1:
            raise DataError(
                f"--val {self.val:g}, --blend {self.blend:g} and --test {self.test:g} leave "
                "nothing to train on: their sum must be below 1"
            )
        if self.folds < 0 or self.folds == 1:
            raise DataError(f"--folds {self.folds} must be 0 (none) or at least 2")


def cut_table(
    table: pd.DataFrame, classes: Sequence[str], shares: Shares, notes: list[str]
) -> tuple[str, ...]:
    """Fill in `split` and `fold`; return the splits that the source brought."""
    kept = (table["excluded"] == "").to_numpy()
    own = table["split"].to_numpy()
    brought = tuple(name for name in SPLITS[1:] if (own[kept] == name).any())
    pool = np.flatnonzero(kept & np.isin(own, ["", "train"]))
    labels = table["class_index"].to_numpy(np.int64)
    groups = table["group"].to_numpy(np.int64)
    fractions = _fractions(labels[pool], groups[pool], classes, shares, brought, notes)
    parts = cut_stratified(labels[pool], groups[pool], fractions, shares.seed)
    splits = own.astype(object)
    splits[pool] = parts
    table["split"] = splits
    _note_absent(labels[kept], splits[kept], classes, notes)
    if shares.folds:
        train = pool[parts == "train"]
        names = [f"fold {fold}" for fold in range(shares.folds)]
        require_images(labels[train], groups[train], classes, names, "the folds")
        table.loc[train, "fold"] = cut_folds(
            labels[train], groups[train], shares.folds, shares.seed
        )
    return brought


def _note_absent(
    labels: Rows, splits: npt.NDArray[np.object_], classes: Sequence[str], notes: list[str]
) -> None:
    """Say which held splits lack a class: what they measure leaves it out."""
    for split in SPLITS[1:]:
        found = set(labels[splits == split].tolist())
        absent = [repr(name) for number, name in enumerate(classes) if number not in found]
        if found and absent:
            more = f" and {len(absent) - MAX_NAMED} more" if len(absent) > MAX_NAMED else ""
            notes.append(f"{split} has no image of {', '.join(absent[:MAX_NAMED])}{more}")


def _fractions(
    labels: Rows,
    groups: Rows,
    classes: Sequence[str],
    shares: Shares,
    brought: Sequence[str],
    notes: list[str],
) -> dict[str, float]:
    """Return {part: share} of what the pool is cut into, `train` first."""
    asked = {"val": shares.val, "blend": shares.blend, "test": shares.test}
    cut = {name: share for name, share in asked.items() if share > 0 and name not in brought}
    blend = cut.pop("blend", 0.0)
    require_images(labels, groups, classes, ("train", *cut), "the splits")
    if blend:
        problem = blend_problem(labels, groups, len(classes), blend, len(cut) + 2)
        if problem:
            notes.append(f"no blend split: {problem}; ensembles are cross-fitted on val")
        else:
            cut["blend"] = blend
    ordered = {name: cut[name] for name in SPLITS if name in cut}
    return {"train": 1 - sum(ordered.values()), **ordered}
