"""Near-duplicates: images that show the same picture, found by perceptual hash, then confirmed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from carray.data.pixels.decode import Pixels
from carray.data.preparation.hamming import near_pairs
from carray.data.preparation.scan_cache import ImageScan
from carray.typing import Rows

MIN_CORRELATION = 0.9  # of the thumbnails, each colour about its own mean
CONFIRMED_AT_ONCE = 1024  # pairs of thumbnails, some 50 MiB

# This limit and `hamming.MAX_BITS` were measured on 866 photographs: among distinct ones, cut to
# their cars, no pair within 10 bits correlates over 0.80; copies saved at quality 50, at half size,
# brightened or with 2 % cut off differ in at most 10 bits and correlate over 0.90.


def near_duplicate_groups(seen: Sequence[ImageScan]) -> Rows:
    """Return a group number per image; images of one group are near-duplicates (or linked by
    others of the group). Unreadable images get a group each.

    The groups are those that comparing all pairs would give.
    """
    groups = _Groups(seen)
    groups.link_equal()
    for block in near_pairs(groups.hashes):
        groups.confirm(block)
    return np.unique(groups.roots(), return_inverse=True)[1].astype(np.int64)


class _Groups:
    """Images joined so far; what is joined already is compared no more, so that many copies of
    few pictures cost little."""

    def __init__(self, seen: Sequence[ImageScan]) -> None:
        rows = np.array([row for row, one in enumerate(seen) if one.thumb is not None], np.int64)
        values = np.array([int(seen[row].perceptual_hash, 16) for row in rows], np.uint64)
        self.hashes, owners = np.unique(values, return_inverse=True)
        self._seen = seen
        self._parents = np.arange(len(seen))
        self._rows = rows[np.argsort(owners, kind="stable")]
        self._starts = np.searchsorted(np.sort(owners), np.arange(len(self.hashes)))
        self._spans: tuple[Rows, Rows] | None = None
        self.members = np.split(self._rows, self._starts[1:]) if len(rows) else []
        """The images of each distinct hash."""
        self._several = np.array([len(members) > 1 for members in self.members], bool)
        self._numbers = np.random.default_rng(0)

    def link_equal(self) -> None:
        """Join those of one hash that show one picture."""
        sizes = [len(members) for members in self.members]
        self._joined(np.repeat(self._rows[self._starts], sizes), self._rows)  # to their first one
        hashes = np.arange(len(sizes))
        for one in hashes[self._apart(np.stack([hashes, hashes], axis=1))]:
            self._link(self.members[one])

    def _link(self, waiting: Rows) -> None:
        """Join images through one another; each meets only those that aren't reached yet."""
        while len(waiting) > 1:
            reached, waiting = [int(waiting[0])], waiting[1:]
            while reached and len(waiting):
                same = self._joined(np.full(len(waiting), reached.pop()), waiting)
                reached += waiting[same].tolist()
                waiting = waiting[~same]

    def confirm(self, pairs: Rows) -> None:
        """Join images of two hashes, (K, 2) of them, where they show one picture."""
        pairs = pairs[self._apart(pairs)]
        pairs = pairs[self._numbers.permutation(len(pairs))]  # soon most are joined by others
        for start in range(0, len(pairs), CONFIRMED_AT_ONCE):
            some = pairs[start : start + CONFIRMED_AT_ONCE]
            some = some[self._apart(some)]
            self._joined(*self._rows[self._starts[some]].T)  # one image of each mostly does
            for pair in some[self._several[some].any(axis=1) & self._apart(some)]:
                self._confirm_all(pair)

    def _confirm_all(self, pair: Rows) -> None:
        """Compare every image of one hash with every image of the other, until all are joined."""
        others = self.members[pair[1]]
        for row in self.members[pair[0]]:
            if self._apart(pair[None])[0]:
                self._joined(np.full(len(others), row), others)

    def roots(self) -> Rows:
        """Return the first image of each image's group."""
        while (self._parents[self._parents] != self._parents).any():
            self._parents = self._parents[self._parents]
        return self._parents

    def _apart(self, pairs: Rows) -> npt.NDArray[np.bool_]:
        """Say which pairs of hashes have images that aren't all joined."""
        if self._spans is None:
            roots = self.roots()[self._rows]
            low, high = (each.reduceat(roots, self._starts) for each in (np.minimum, np.maximum))
            self._spans = low, high
        low, high = self._spans
        apart: npt.NDArray[np.bool_] = low[pairs].min(axis=1) != high[pairs].max(axis=1)
        return apart

    def _joined(self, ones: Rows, others: Rows) -> npt.NDArray[np.bool_]:
        """Join the pairs that show one picture; return which they are."""
        same: npt.NDArray[np.bool_] = ones == others
        for start in range(0, len(ones), CONFIRMED_AT_ONCE):
            part = slice(start, start + CONFIRMED_AT_ONCE)
            same[part] = _same_pictures(
                [self._seen[row] for row in ones[part]], [self._seen[row] for row in others[part]]
            )
        for one, other in zip(ones[same].tolist(), others[same].tolist(), strict=True):
            self._join(one, other)
        if same.any():
            self._spans = None
        return same

    def _join(self, first: int, second: int) -> None:
        one, other = self._root(first), self._root(second)
        self._parents[max(one, other)] = min(one, other)

    def _root(self, row: int) -> int:
        while self._parents[row] != row:
            self._parents[row] = self._parents[self._parents[row]]
            row = int(self._parents[row])
        return row


def _same_pictures(ones: Sequence[ImageScan], others: Sequence[ImageScan]) -> npt.NDArray[np.bool_]:
    equal = [
        one.content_hash == other.content_hash and one.perceptual_hash == other.perceptual_hash
        for one, other in zip(ones, others, strict=True)
    ]
    first, second = (
        np.stack([one.thumb for one in side if one.thumb is not None]) for side in (ones, others)
    )
    same: npt.NDArray[np.bool_] = (correlations(first, second) >= MIN_CORRELATION) | np.array(equal)
    return same


def correlations(ones: Pixels, others: Pixels) -> npt.NDArray[np.float32]:
    """Return how alike equally sized images are, (K, H, W, 3) each, in [-1, 1], (K,), whatever
    their brightness; 0 where one of a pair is flat."""
    first, second = _centred(ones), _centred(others)
    products = np.einsum("kp,kp->k", first, second)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    alike: npt.NDArray[np.float32] = np.zeros_like(products)
    np.divide(products, norms, out=alike, where=norms > 0)
    return alike


def _centred(images: Pixels) -> npt.NDArray[np.float32]:
    colours = np.moveaxis(images.reshape(len(images), -1, 3), 2, 1)
    planes = colours.astype(np.float32, order="C")  # (K, 3, pixels)
    centred: npt.NDArray[np.float32] = planes - planes.mean(axis=2, keepdims=True)
    return centred.reshape(len(images), -1)
