"""The pairs found are those that comparing all finds."""

import numpy as np
import pytest

from carray.data.preparation import hamming
from carray.data.preparation.hamming import MAX_BITS, Hashes, near_pairs


def clustered(count: int, centres: int, most_bits: int, seed: int) -> Hashes:
    rng = np.random.default_rng(seed)
    hashes = rng.choice(rng.integers(0, 2**64, centres, np.uint64), count)
    for _ in range(most_bits):
        hashes = hashes ^ np.left_shift(np.uint64(1), rng.integers(0, 64, count).astype(np.uint64))
    return np.unique(hashes)


def compared(hashes: Hashes) -> set[tuple[int, int]]:
    bits = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    return {(one, other) for one, other in np.argwhere(bits <= MAX_BITS).tolist() if one < other}


def found(hashes: Hashes) -> set[tuple[int, int]]:
    pairs = [pair for block in near_pairs(hashes) for pair in block.tolist()]
    return {(min(pair), max(pair)) for pair in pairs}


@pytest.mark.parametrize("step_cost", [0, 10**9], ids=["by bands", "all pairs"])
@pytest.mark.parametrize(
    ("count", "centres", "most_bits"),
    [(1, 1, 0), (2, 1, 3), (90, 1, 5), (150, 9, 4), (200, 3, 9), (200, 20, 14), (150, 150, 0)],
)
def test_pairs_are_those_of_all(
    step_cost: int,
    count: int,
    centres: int,
    most_bits: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hamming, "STEP_COST", step_cost)
    monkeypatch.setattr(hamming, "PAIRS_AT_ONCE", 300)
    hashes = clustered(count, centres, most_bits, seed=count)
    assert found(hashes) == compared(hashes)


def test_every_way_to_differ_in_ten_bits_is_found_in_some_band() -> None:
    rng = np.random.default_rng(0)
    changes = [rng.permutation(64)[:MAX_BITS] for _ in range(300)]
    changes += [np.arange(16 * band, 16 * band + MAX_BITS) for band in range(4)]  # all in one band
    masks = [sum(1 << int(bit) for bit in bits) for bits in changes]
    for mask in masks:
        bands = [(mask >> start & 0xFFFF).bit_count() for start in range(0, 64, 16)]
        assert any(bits <= radius for bits, radius in zip(bands, hamming.RADII, strict=True))


def test_many_hashes_are_searched_by_bands_and_few_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(hamming, "_near_of_all", lambda hashes: asked.append(len(hashes)) or ())
    for count in (500, 30_000):
        list(near_pairs(np.random.default_rng(0).integers(0, 2**64, count, np.uint64)))
    assert asked == [500]
