"""Near-duplicates: images that show the same picture, found by perceptual hash, then confirmed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from carray.data.parallel import num_workers
from carray.data.pixels.decode import Pixels
from carray.data.preparation.hamming import near_pairs
from carray.data.preparation.scan_cache import ImageScan
from carray.progress import silent
from carray.typing import Progress, Rows

MIN_CORRELATION = 0.9  # of the thumbnails, each colour about its own mean
MIN_MIDDLE = 0.85  # of the thumbnails' middles, past which a second look is worth its time
MIDDLE = 8  # cells of a side of the middle
MIDDLE_ROWS = 512  # compared with all the others at once
MAX_MISSES = 2  # second looks in vain at one image; a rig's photographs would never end otherwise
MAX_CHAIN = 8  # images of a group; past it two groups join only if their first images match, too
AHEAD = 64  # pairs of which the second looks are done side by side
CONFIRMED_AT_ONCE = 1024  # pairs of thumbnails, some 50 MiB

# This limit and `hamming.MAX_BITS` were measured on 866 photographs: among distinct ones, cut to
# their cars, no pair within 10 bits correlates over 0.80; copies saved at quality 50, at half size,
# brightened or with 2 % cut off differ in at most 10 bits and correlate over 0.90.


Look = Callable[[int, int, bool], bool]  # two rows, whether the second is mirrored: one picture?


def near_duplicate_groups(
    seen: Sequence[ImageScan], look: Look | None = None, progress: Progress = silent
) -> Rows:
    """Return a group number per image; images of one group are near-duplicates (or linked by
    others of the group). Unreadable images get a group each.

    Without `look` the groups are those that comparing all pairs of thumbnails would give. With it
    each suspected pair is confirmed by it, and copies that are mirrored or have another background
    are suspected, too. Threads call it; the groups don't depend on how many.
    """
    with ThreadPoolExecutor(num_workers()) as pool:
        groups = _Groups(seen, look, pool)
        groups.link_equal()
        for block in near_pairs(groups.hashes):
            groups.confirm(block)
        if look is not None:
            groups.confirm_middles(progress)
    return np.unique(groups.roots(), return_inverse=True)[1].astype(np.int64)


class _Groups:
    """Images joined so far; what is joined already is compared no more, so that many copies of
    few pictures cost little."""

    def __init__(
        self, seen: Sequence[ImageScan], look: Look | None, pool: ThreadPoolExecutor
    ) -> None:
        rows = np.array([row for row, one in enumerate(seen) if one.thumb is not None], np.int64)
        values = np.array([int(seen[row].perceptual_hash, 16) for row in rows], np.uint64)
        self.hashes, owners = np.unique(values, return_inverse=True)
        self._seen = seen
        self._look = look
        self._misses = np.zeros(len(seen), np.int64)
        self._sizes = np.ones(len(seen), np.int64)  # of the group that a root begins
        self._pool = pool
        self._looked: dict[tuple[int, int, bool], bool] = {}
        self._ahead: dict[tuple[int, int, bool], bool] = {}  # looked at, perhaps in vain
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
        self._look_ahead(ones[same].tolist(), others[same].tolist(), mirrored=False)
        for place in np.flatnonzero(same).tolist():
            same[place] = self._settled(int(ones[place]), int(others[place]), mirrored=False)
        if same.any():
            self._spans = None
        return same

    def confirm_middles(self, progress: Progress) -> None:
        """Join images whose middles are alike, as they are or mirrored, after a second look."""
        with progress("comparing images", 2 * len(self._rows)) as advance:
            for mirrored in (False, True):
                for pairs, num_rows in _alike_middles(self._seen, self._rows, mirrored):
                    for start in range(0, len(pairs), AHEAD):
                        some = pairs[start : start + AHEAD].T.tolist()
                        self._look_ahead(*some, mirrored=mirrored)
                        for one, other in zip(*some, strict=True):
                            if self._root(one) != self._root(other):
                                self._settled(one, other, mirrored=mirrored)
                    advance(num_rows)

    def _look_ahead(self, ones: Sequence[int], others: Sequence[int], *, mirrored: bool) -> None:
        """Look at the pairs in threads, but at no image more often than if all were in vain."""
        if self._look is None:
            return
        misses, asked = Counter[int](), []
        for one, other in zip(ones, others, strict=True):
            pair = min(one, other), max(one, other), mirrored
            if self._root(one) == self._root(other) or pair in self._looked:
                continue
            if all(self._misses[row] + misses[row] < MAX_MISSES for row in pair[:2]):
                misses.update(pair[:2])
                asked.append(pair)
        self._ahead = dict(
            zip(asked, self._pool.map(self._look, *zip(*asked, strict=True)), strict=True)
        )

    def _settled(self, one: int, other: int, *, mirrored: bool) -> bool:
        """Join two images, unless the second look finds two pictures; say whether they are one."""
        first, second = self._root(one), self._root(other)
        if first == second:
            return True
        if self._look is not None and not _equal(self._seen[one], self._seen[other]):
            if not self._confirmed(one, other, mirrored):
                return False
            long = self._sizes[first] + self._sizes[second] > MAX_CHAIN
            if long and not any(self._confirmed(first, second, way) for way in (False, True)):
                return False
        self._sizes[min(first, second)] = self._sizes[first] + self._sizes[second]
        self._join(one, other)
        return True

    def _confirmed(self, one: int, other: int, mirrored: bool) -> bool:
        assert self._look is not None
        pair = min(one, other), max(one, other), mirrored
        if one == other:
            return True
        if pair not in self._looked:
            if max(self._misses[one], self._misses[other]) >= MAX_MISSES:
                return False
            self._looked[pair] = self._ahead[pair] if pair in self._ahead else self._look(*pair)
            if not self._looked[pair]:
                self._misses[[one, other]] += 1
        return self._looked[pair]

    def _join(self, first: int, second: int) -> None:
        one, other = self._root(first), self._root(second)
        self._parents[max(one, other)] = min(one, other)

    def _root(self, row: int) -> int:
        while self._parents[row] != row:
            self._parents[row] = self._parents[self._parents[row]]
            row = int(self._parents[row])
        return row


def _equal(one: ImageScan, other: ImageScan) -> bool:
    return one.content_hash == other.content_hash and one.perceptual_hash == other.perceptual_hash


def _alike_middles(
    seen: Sequence[ImageScan], rows: Rows, mirrored: bool
) -> Iterator[tuple[Rows, int]]:
    """Yield, block by block, pairs of rows whose thumbnails' middles correlate, (K, 2), the best
    first, and how many rows were compared."""
    thumbs = [thumb for row in rows if (thumb := seen[row].thumb) is not None]
    if not thumbs:
        return
    middles = _middles(np.stack(thumbs))
    others = middles
    if mirrored:
        others = middles.reshape(len(rows), 3, MIDDLE, MIDDLE)[..., ::-1].reshape(len(rows), -1)
    for start in range(0, len(rows), MIDDLE_ROWS):
        alike = middles[start : start + MIDDLE_ROWS] @ others[start:].T
        pairs = np.argwhere(alike >= MIN_MIDDLE)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        order = np.argsort(-alike[pairs[:, 0], pairs[:, 1]], kind="stable")
        yield rows[pairs[order] + start], len(alike)


def _middles(thumbs: Pixels) -> npt.NDArray[np.float32]:
    """Return the middle of each thumbnail, coarse, of mean 0 and length 1 (0 where it is flat)."""
    quarter = thumbs.shape[1] // 4
    inner = thumbs[:, quarter:-quarter, quarter:-quarter].astype(np.float32)
    step = inner.shape[1] // MIDDLE
    coarse = inner.reshape(len(inner), MIDDLE, step, MIDDLE, step, 3).mean(axis=(2, 4))
    planes = np.moveaxis(coarse, 3, 1).reshape(len(inner), 3, -1)
    flat = (planes - planes.mean(axis=2, keepdims=True)).reshape(len(inner), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = np.where(norms > MIDDLE, flat / np.maximum(norms, 1e-6), 0)
    return unit.astype(np.float32)


def _same_pictures(ones: Sequence[ImageScan], others: Sequence[ImageScan]) -> npt.NDArray[np.bool_]:
    equal = [_equal(one, other) for one, other in zip(ones, others, strict=True)]
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
