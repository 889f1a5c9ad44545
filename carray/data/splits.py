"""Cut images into splits and folds: stratified by class, groups of near-duplicates kept whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from carray.data.manifest import Rows
from carray.errors import DataError

MIN_BLEND_IMAGES = 40  # fewer choose an ensemble no better than chance would
MAX_NAMED = 8  # classes that an error names before it counts the rest


def cut_stratified(
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


def cut_folds(labels: Rows, groups: Rows, num_folds: int, seed: int) -> Rows:
    """Return the fold of each image in [0, num_folds), stratified, groups kept whole."""
    fractions = {str(fold): 1 / num_folds for fold in range(num_folds)}
    return cut_stratified(labels, groups, fractions, seed).astype(np.int64)


def require_images(
    labels: Rows, groups: Rows, classes: Sequence[str], parts: Sequence[str], what: str
) -> None:
    """Check that every class has a group for each part.

    Raises:
        DataError: names the classes that have too few.
    """
    counts = distinct_images(labels, groups, len(classes))
    few = np.flatnonzero(counts < len(parts)).tolist()
    short = [f"{classes[k]!r} ({counts[k]})" for k in few]
    if not short:
        return
    named = ", ".join(short[:MAX_NAMED])
    more = f" and {len(short) - MAX_NAMED} more" if len(short) > MAX_NAMED else ""
    listed = ", ".join(parts[:MAX_NAMED]) + ", ..." * (len(parts) > MAX_NAMED)
    raise DataError(
        f"too few distinct images for {what} ({listed}: {len(parts)} are needed) in "
        f"{named}{more}: add images, --merge or --exclude classes, or ask for fewer splits"
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
        return f"it would hold {total} images, at least {MIN_BLEND_IMAGES} are needed"
    rarest = int(distinct_images(labels, groups, num_classes).min())
    if (per_class < 0.5).any() or rarest < num_parts:
        return f"the smallest class has {rarest} images, too few for a share of {fraction:g}"
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
