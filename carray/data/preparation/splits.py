"""Cut images into splits and folds: stratified by class, groups of near-duplicates kept whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pandas as pd

from carray.data.manifest import SPLITS
from carray.errors import Complaints, DataError, counted, some_of
from carray.typing import Rows

ENSEMBLE_IMAGES = 10  # with fewer on val or blend an ensemble is refused
MIN_BLEND_IMAGES = 40  # fewer choose an ensemble no better than chance would
MAX_NAMED = 8  # classes that an error names before it counts the rest


def split_stratified(
    labels: Rows, groups: Rows, fractions: Mapping[str, float], seed: int
) -> npt.NDArray[np.str_]:
    """Return the part of each image: of every class each part gets its fraction.

    Groups stay whole, so a class's shares are as near as its groups allow; each image of a group
    counts for its own class. A class with a group for each part is in each, unless groups that it
    shares with other classes don't allow it. The rest of the fractions goes to the first part.

    Args:
        labels: class index per image, (N,).
        groups: group number per image, (N,).
        fractions: part -> share in (0, 1]; they sum to 1.
        seed: the same seed cuts the same images the same way.
    """
    parts = list(fractions)
    needs = _quotas(labels, list(fractions.values()))  # (classes, parts): images still wanted
    chosen = np.zeros(len(labels), np.int64)
    for rows in _shuffled_groups(groups, seed):
        part = int(np.argmax(needs[labels[rows]].sum(axis=0)))  # lacks these classes most
        chosen[rows] = part
        np.subtract.at(needs[:, part], labels[rows], 1)
    _fill_empty(chosen, needs, labels, groups)
    return np.array(parts)[chosen]


def assign_folds(labels: Rows, groups: Rows, num_folds: int, seed: int) -> Rows:
    """Return the fold of each image in [0, num_folds), stratified, groups kept whole."""
    fractions = {str(fold): 1 / num_folds for fold in range(num_folds)}
    return split_stratified(labels, groups, fractions, seed).astype(np.int64)


CURE = (
    "add images, --merge classes, leave the small ones out (--min-images, --exclude), or ask for "
    "fewer splits"
)


def require_images(
    labels: Rows,
    groups: Rows,
    classes: Sequence[str],
    parts: Sequence[str],
    what: str,
    elsewhere: Mapping[int, str] = MappingProxyType({}),
    cure: str = CURE,
) -> None:
    """Check that every class has a group for each part.

    `elsewhere` says of a class where it has images that can't be cut: "4 in test"; `cure` what
    the command at hand offers.

    Raises:
        DataError: names the classes that have too few.
    """
    counts = distinct_images(labels, groups, len(classes))
    few = np.flatnonzero(counts < len(parts)).tolist()
    short = [
        f"{classes[k]!r} ({counts[k]}{f'; {elsewhere[k]}' if k in elsewhere else ''})" for k in few
    ]
    if not short:
        return
    listed = ", ".join(parts[:MAX_NAMED]) + ", ..." * (len(parts) > MAX_NAMED)
    raise DataError(
        f"too few distinct images for {what} ({listed}: {len(parts)} are needed) in "
        f"{some_of(short, MAX_NAMED)}: {cure}"
    )


def distinct_images(labels: Rows, groups: Rows, num_classes: int) -> Rows:
    """Return for each class in how many groups it has images."""
    pairs = np.unique(np.stack([labels, groups]), axis=1)[0]
    return np.bincount(pairs, minlength=num_classes).astype(np.int64)


def blend_problem(
    labels: Rows, groups: Rows, num_classes: int, fraction: float, num_parts: int
) -> str:
    """Say why a blend split of this fraction would be too small, "" if it wouldn't.

    `num_parts` counts all the parts that each class is cut into, blend too.
    """
    per_class = np.bincount(labels, minlength=num_classes) * fraction
    total = round(float(per_class.sum()))
    if total < MIN_BLEND_IMAGES:
        return f"it would hold {counted(total, 'image')}, at least {MIN_BLEND_IMAGES} are needed"
    rarest = int(distinct_images(labels, groups, num_classes).min())
    if (per_class < 0.5).any() or rarest < num_parts:
        few = counted(rarest, "image")
        return f"the smallest class has {few}, too few for a share of {fraction:g}"
    return ""


def _quotas(labels: Rows, fractions: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return the images that each part should get of each class, (classes, parts), whole numbers
    that sum to the class's images; every part gets one where the class has enough.

    Of equal remainders another part goes first in every class, or fold 0 would be the largest."""
    counts = np.bincount(labels)
    wanted = np.outer(counts, fractions)
    quotas = np.floor(wanted + 1e-9)
    turns = (np.arange(len(fractions)) - np.arange(len(counts))[:, None]) % len(fractions)
    for quota, want, count, turn in zip(quotas, wanted, counts, turns, strict=True):
        neediest = np.argsort(quota - want + 1e-6 * turn, kind="stable")
        quota[neediest[: int(count - quota.sum())]] += 1
        for part in np.flatnonzero(quota == 0):
            if quota.max() > 1:
                quota[int(np.argmax(quota))] -= 1
                quota[part] = 1
    return quotas


def _fill_empty(chosen: Rows, needs: npt.NDArray[np.float64], labels: Rows, groups: Rows) -> None:
    """Move groups to the parts that lack a class with a group for each part: its large groups may
    have filled the largest parts and left none for the others."""
    (owners, classes), first, sizes = np.unique(
        np.stack([groups, labels]), axis=1, return_index=True, return_counts=True
    )
    held = np.zeros(needs.shape, np.int64)  # groups of each class in each part
    np.add.at(held, (classes, chosen[first]), 1)
    lacking = (held == 0) & (held.sum(axis=1) >= needs.shape[1])[:, None]
    for own, part in np.argwhere(lacking).tolist():
        best, least = None, np.inf
        for group in owners[classes == own] if held[own, part] == 0 else ():
            pairs = owners == group
            mine, source = classes[pairs], chosen[first[pairs][0]]
            if (held[mine, source] < 2).any():
                continue  # its part would lack a class then
            moved = needs[mine][:, [source, part]] + np.outer(sizes[pairs], (1, -1))
            worse = float((np.abs(moved) - np.abs(needs[mine][:, [source, part]])).sum())
            if worse < least:
                best, least = (group, mine, source, moved), worse
        if best is not None:
            group, mine, source, moved = best
            chosen[groups == group] = part
            held[mine, source] -= 1
            held[mine, part] += 1
            needs[mine, source], needs[mine, part] = moved[:, 0], moved[:, 1]


def _shuffled_groups(groups: Rows, seed: int) -> list[Rows]:
    """Return the rows of each group: the largest groups first, equals in seeded random order."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    members = np.split(order, starts[1:])
    shuffle = np.random.default_rng(seed).permutation(len(members))
    return sorted((members[k] for k in shuffle), key=len, reverse=True)


@dataclass(frozen=True)
class SplitFractions:
    """What is asked of the splits: shares of the images that the source leaves to be split."""

    val: float
    blend: float
    test: float
    folds: int
    seed: int

    def check(self) -> None:
        """Refuse shares that can't be; raises DataError."""
        complaints = Complaints()
        for name in ("val", "blend", "test"):
            share = getattr(self, name)
            with complaints.heard():
                if not 0 <= share < 1:
                    raise DataError(f"--{name}-size {share:g} must be at least 0 and below 1")
        with complaints.heard():
            if not complaints and self.val + self.blend + self.test >= 1:
                raise DataError(
                    f"--val-size {self.val:g}, --blend-size {self.blend:g} and --test-size "
                    f"{self.test:g} leave nothing to train on: their sum must be below 1"
                )
        with complaints.heard():
            if self.folds < 0 or self.folds == 1:
                raise DataError(f"--folds {self.folds} must be 0 (none) or at least 2")
        complaints.refuse()


def check_sizes(
    labels: Rows,
    groups: Rows,
    own: npt.NDArray[np.object_],
    classes: Sequence[str],
    shares: SplitFractions,
) -> None:
    """Check that every class has an image for each split and fold that is to be cut.

    Args:
        labels: class index per image, (N,).
        groups: group number per image, (N,).
        own: the source's split of each image, "" where it has none, (N,).
        classes: their names.
        shares: what is asked.

    Raises:
        DataError: names the classes that have too few.
    """
    brought = _brought(own)
    cut = [part for part in _cut(shares, brought) if part != "blend"]
    folds = [f"fold {fold}" for fold in range(shares.folds)]
    parts = (*(folds or ["train"]), *cut)
    pool = np.isin(own, ["", "train"])
    held = _held_elsewhere(labels, own, brought)
    what = "the splits and folds" if folds else "the splits"
    require_images(labels[pool], groups[pool], classes, parts, what, held)


def assign_splits(
    table: pd.DataFrame, classes: Sequence[str], shares: SplitFractions, notes: list[str]
) -> tuple[str, ...]:
    """Fill in `split` and `fold`; return the splits that the source brought.

    Raises:
        DataError: classes have too few images.
    """
    kept = (table["excluded"] == "").to_numpy()
    own = table["split"].to_numpy()
    pool = np.flatnonzero(kept & np.isin(own, ["", "train"]))
    labels = table["class_index"].to_numpy(np.int64)
    groups = table["group"].to_numpy(np.int64)
    check_sizes(labels[kept], groups[kept], own[kept], classes, shares)
    brought = _brought(own[kept])
    fractions, problem = _fractions(labels[pool], groups[pool], len(classes), _cut(shares, brought))
    parts = split_stratified(labels[pool], groups[pool], fractions, shares.seed)
    splits = own.astype(object)
    splits[pool] = parts
    table["split"] = splits
    if problem:
        num_val = int((splits[kept] == "val").sum())
        notes.append(f"no blend split: {problem}; {_without_blend(num_val)}")
    _note_absent(labels[kept], splits[kept], classes, notes)
    if shares.folds:
        train = pool[parts == "train"]
        names = [f"fold {fold}" for fold in range(shares.folds)]
        require_images(labels[train], groups[train], classes, names, "the folds")
        table.loc[train, "fold"] = assign_folds(
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
            notes.append(f"{split} has no image of {some_of(absent, MAX_NAMED)}")


def _held_elsewhere(
    labels: Rows, own: npt.NDArray[np.object_], brought: Sequence[str]
) -> dict[int, str]:
    """Say of each class how many images the source's own splits hold: `{3: "4 in test"}`."""
    said: dict[int, list[str]] = {}
    for split in brought:
        numbers, counts = np.unique(labels[own == split], return_counts=True)
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True):
            said.setdefault(number, []).append(f"{count} in {split}")
    return {number: ", ".join(counts) for number, counts in said.items()}


def _without_blend(num_val: int) -> str:
    """Say what ensembles are judged on without a blend split."""
    if num_val >= ENSEMBLE_IMAGES:
        return "ensembles are cross-fitted on val"
    return (
        f"val holds {counted(num_val, 'image')}, and `carray ensemble` needs {ENSEMBLE_IMAGES} on "
        "one of the two: larger --val-size or --blend-size, or more images"
    )


def _brought(own: npt.NDArray[np.object_]) -> tuple[str, ...]:
    """Return the held splits that the source brings."""
    return tuple(name for name in SPLITS[1:] if (own == name).any())


def _cut(shares: SplitFractions, brought: Sequence[str]) -> dict[str, float]:
    """Return {held split: share} of what is to be cut from the source's training images."""
    asked = {"val": shares.val, "blend": shares.blend, "test": shares.test}
    return {name: share for name, share in asked.items() if share > 0 and name not in brought}


def _fractions(
    labels: Rows, groups: Rows, num_classes: int, cut: Mapping[str, float]
) -> tuple[dict[str, float], str]:
    """Return {part: share} of what the pool is cut into, `train` first, and why there is no blend
    split, "" where there is one or none was asked for."""
    held, problem = dict(cut), ""
    if blend := held.get("blend", 0.0):
        problem = blend_problem(labels, groups, num_classes, blend, len(held) + 1)
        if problem:
            del held["blend"]
    ordered = {name: held[name] for name in SPLITS if name in held}
    return {"train": 1 - sum(ordered.values()), **ordered}, problem
