"""Pairs of 64-bit hashes that differ in few bits, without comparing all pairs.

Multi-index hashing (Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index
Hashing", CVPR 2012): of two hashes within `MAX_BITS`, at least one of the four 16-bit bands is
within its own radius, so only hashes that share a bucket of a band, or nearly, are compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from carray.typing import Rows

MAX_BITS = 10  # of 64 that may differ
RADII = (2, 2, 2, 1)  # of the bands: past all of them at once, 3 + 3 + 3 + 2 bits differ
BAND_BITS = 16
PAIRS_AT_ONCE = 1_000_000  # compared in one block, some 50 MiB
STEP_COST = 8  # of one pair gathered from buckets, in pairs of a plain block

Hashes = npt.NDArray[np.uint64]


def near_pairs(hashes: Hashes) -> Iterator[Rows]:
    """Yield blocks (K, 2) of positions of hashes that differ in at most `MAX_BITS` bits.

    Every such pair comes at least once, whichever of the two first. Memory is bounded by the
    hashes and one block. Where the buckets are so full that they save nothing, all pairs are
    compared.

    Args:
        hashes: (N,); equal ones are better grouped before.
    """
    all_pairs = len(hashes) * (len(hashes) - 1) // 2
    bands = [(hashes >> np.uint64(at)).astype(np.uint16).astype(np.int64) for at in _STARTS]
    steps = len(hashes) * sum(1 for radius in RADII for _ in _masks(radius))  # look-ups alone
    if STEP_COST * steps <= all_pairs:  # to count the pairs, too, takes a tenth of a second
        steps += sum(_pairs(band, radius) for band, radius in zip(bands, RADII, strict=True))
    if STEP_COST * steps > all_pairs:
        yield from _near_of_all(hashes)
        return
    for band, radius in zip(bands, RADII, strict=True):
        for first, second in _banded(band, radius):
            near = np.bitwise_count(hashes[first] ^ hashes[second]) <= MAX_BITS
            if near.any():
                yield np.stack([first[near], second[near]], axis=1)


def _near_of_all(hashes: Hashes) -> Iterator[Rows]:
    """Yield the near pairs, block by block of all pairs."""
    height = max(1, PAIRS_AT_ONCE // max(1, len(hashes)))
    for start in range(0, len(hashes), height):
        block = hashes[start : start + height, None] ^ hashes[None, start:]
        pairs = np.argwhere(np.bitwise_count(block) <= MAX_BITS)
        pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        if len(pairs):
            yield pairs + start


_STARTS = range(0, 64, BAND_BITS)


def _masks(radius: int) -> Iterator[int]:
    """Yield the bit patterns of a band with at most `radius` bits set, 0 first."""
    for count in range(radius + 1):
        for bits in combinations(range(BAND_BITS), count):
            yield sum(1 << bit for bit in bits)


def _pairs(band: Rows, radius: int) -> int:
    """Count the pairs that `_banded` yields; it looks up each hash with each mask besides."""
    sizes = np.bincount(band, minlength=1 << BAND_BITS)
    values = np.arange(len(sizes))
    return sum(int(sizes @ sizes[values ^ mask]) for mask in _masks(radius)) // 2


def _banded(band: Rows, radius: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield, in blocks, the pairs whose bands differ in at most `radius` bits, each once."""
    order = np.argsort(band, kind="stable")
    values = band[order]
    edges = np.searchsorted(values, np.arange((1 << BAND_BITS) + 1))  # where each bucket begins
    following = np.arange(1, len(values) + 1)
    for mask in _masks(radius):
        others = values ^ mask
        starts = np.where(values == others, following, edges[others])  # in its own: those after it
        counts = np.where(values <= others, edges[others + 1] - starts, 0)
        yield from _expanded(order, starts, counts)


def _expanded(order: Rows, starts: Rows, counts: Rows) -> Iterator[tuple[Rows, Rows]]:
    """Yield, in blocks, `order[row]` with each of `order[starts[row] : starts[row] + counts[row]]`
    for every row."""
    rows = np.flatnonzero(counts)
    ends = np.cumsum(counts[rows])
    wanted = np.arange(0, ends[-1] if len(ends) else 0, PAIRS_AT_ONCE)
    cuts = np.unique(np.searchsorted(ends, wanted)).tolist()
    for first, last in pairwise([*cuts, len(rows)]):
        block = rows[first:last]
        repeats = counts[block]
        shifts = starts[block] - (np.cumsum(repeats) - repeats)
        yield (
            np.repeat(order[block], repeats),
            order[np.repeat(shifts, repeats) + np.arange(repeats.sum())],
        )
