"""Near-duplicates: images that show the same picture, found by perceptual hash, then confirmed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from carray.data.decode import Pixels
from carray.data.scan import Seen

MAX_BITS = 10  # of 64 that may differ
MIN_CORRELATION = 0.9  # of the thumbnails, each colour about its own mean
PAIRS_AT_ONCE = 4_000_000  # compared in one block, 32 MB of hashes

# Both limits were measured on 866 photographs: among distinct ones, cut to their cars, no pair
# within 10 bits correlates over 0.80; copies saved at quality 50, at half size, brightened or
# with 2 % cut off differ in at most 10 bits and correlate over 0.90.


def near_duplicate_groups(seen: Sequence[Seen]) -> npt.NDArray[np.int64]:
    """Return a group number per image; images of one group are near-duplicates (or linked by
    others of the group). Unreadable images get a group each.

    Compares all pairs in blocks: 20,000 images take seconds.
    """
    parents = np.arange(len(seen))
    for first, second in near_duplicate_pairs(seen):
        _join(parents, first, second)
    roots = np.array([_root(parents, row) for row in range(len(seen))], np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def near_duplicate_pairs(seen: Sequence[Seen]) -> Iterator[tuple[int, int]]:
    """Yield the pairs (i, j), i < j, that are near-duplicates."""
    rows = np.array([row for row, one in enumerate(seen) if one.thumb is not None], np.int64)
    hashes = np.array([int(seen[row].perceptual_hash, 16) for row in rows], np.uint64)
    height = max(1, PAIRS_AT_ONCE // max(1, len(rows)))
    for start in range(0, len(rows), height):
        block = hashes[start : start + height, None] ^ hashes[None, start:]
        for near, far in np.argwhere(np.bitwise_count(block) <= MAX_BITS):
            if near < far and _same_picture(seen[rows[start + near]], seen[rows[start + far]]):
                yield int(rows[start + near]), int(rows[start + far])


def _same_picture(one: Seen, other: Seen) -> bool:
    if one.content_hash == other.content_hash and one.perceptual_hash == other.perceptual_hash:
        return True
    if one.thumb is None or other.thumb is None:
        return False
    return correlation(one.thumb, other.thumb) >= MIN_CORRELATION


def correlation(one: Pixels, other: Pixels) -> float:
    """Return how alike two equally sized images are, in [-1, 1], whatever their brightness;
    0 where one of them is flat."""
    first, second = _centred(one), _centred(other)
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norm if norm > 0 else 0.0


def _centred(image: Pixels) -> npt.NDArray[np.float32]:
    colours = image.reshape(-1, 3).astype(np.float32)  # (pixels, 3)
    centred: npt.NDArray[np.float32] = (colours - colours.mean(axis=0)).ravel()
    return centred


def _root(parents: npt.NDArray[np.int64], row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = int(parents[row])
    return row


def _join(parents: npt.NDArray[np.int64], first: int, second: int) -> None:
    one, other = _root(parents, first), _root(parents, second)
    parents[max(one, other)] = min(one, other)
