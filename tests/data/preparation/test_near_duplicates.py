"""Near-duplicates are found, and nothing else."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.sparse.csgraph import connected_components

from carray.data.preparation import near_duplicates
from carray.data.preparation.hamming import MAX_BITS
from carray.data.preparation.near_duplicates import (
    MIN_CORRELATION,
    correlations,
    near_duplicate_groups,
)
from carray.data.preparation.scan import scan_image, scan_images
from carray.data.preparation.scan_cache import ImageScan
from tests.data.pictures import Picture, picture, save


def recompressed(pixels: Picture) -> Picture:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


CHANGES = {
    "recompressed": recompressed,
    "brighter": lambda pixels: np.clip(pixels.astype(int) * 1.1 + 12, 0, 255).astype(np.uint8),
    "half size": lambda pixels: pixels[::2, ::2],
    "an edge cut off": lambda pixels: np.ascontiguousarray(pixels[2:, 2:]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_copy_is_in_its_originals_group(change: object, tmp_path: Path) -> None:
    assert callable(change)
    originals = [picture(seed, 240, 180) for seed in range(6)]
    paths = [save(tmp_path / f"{n}.png", pixels) for n, pixels in enumerate(originals)]
    paths += [save(tmp_path / f"c{n}.png", change(pixels)) for n, pixels in enumerate(originals)]
    groups = near_duplicate_groups(scan_images(paths, [None] * 12, 0.0))
    assert groups.tolist() == [*range(6), *range(6)]


def test_groups_are_joined_through_a_common_neighbour() -> None:
    thumb = picture(0, 32, 32)
    hashes = [0, 0xFF, 0xFFFF, 0xAAAA_AAAA_AAAA_AAAA]  # neighbours differ in 8 bits, ends in 16
    seen = [ImageScan("", str(n), f"{value:016x}", 1, 1, thumb) for n, value in enumerate(hashes)]
    assert near_duplicate_groups(seen).tolist() == [0, 0, 0, 1]


def test_an_equal_hash_of_another_picture_is_no_duplicate() -> None:
    seen = [
        ImageScan("", str(seed), "00ff00ff00ff00ff", 1, 1, picture(seed, 32, 32)) for seed in (1, 2)
    ]
    assert near_duplicate_groups(seen).tolist() == [0, 1]


def test_flat_pictures_are_not_one_group(tmp_path: Path) -> None:
    flat = [save(tmp_path / f"{v}.png", np.full((40, 40, 3), v, np.uint8)) for v in (10, 90, 200)]
    groups = near_duplicate_groups(scan_images(flat, [None] * 3, 0.0))
    assert len(set(groups.tolist())) == 3


def test_unreadable_images_stand_alone() -> None:
    assert near_duplicate_groups(
        [ImageScan(problem="broken"), ImageScan(problem="broken")]
    ).tolist() == [
        0,
        1,
    ]


def test_correlation_ignores_brightness() -> None:
    pixels = picture(4, 32, 32) // 2
    found = correlations(np.stack([pixels, pixels]), np.stack([pixels + 40, 255 - pixels]))
    assert found.tolist() == pytest.approx([1.0, -1.0])


def variants(count: int, pictures: int, most_bits: int, noise: int, seed: int) -> list[ImageScan]:
    """Noisy copies of a few pictures, their hashes a few bits off; some have another's hash."""
    rng = np.random.default_rng(seed)
    originals = [picture(number, 32, 32).astype(int) for number in range(pictures)]
    hashes = rng.integers(0, 2**64, pictures, np.uint64)
    made = []
    for number in range(count):
        own, shown = rng.integers(pictures, size=2)
        value = int(hashes[own])
        for bit in rng.integers(0, 64, rng.integers(most_bits + 1)):
            value ^= 1 << int(bit)
        pixels = originals[own if number % 4 else shown] + rng.integers(
            -noise, noise + 1, (32, 32, 3)
        )
        thumb = np.clip(pixels, 0, 255).astype(np.uint8)
        made.append(ImageScan("", str(number % (count - 9)), f"{value:016x}", 1, 1, thumb))
    return [*made, ImageScan(problem="broken")]


def groups_of_all_pairs(seen: list[ImageScan]) -> list[int]:
    near = np.zeros((len(seen), len(seen)), bool)
    blank = np.zeros((32, 32, 3), np.uint8)
    thumbs = np.stack([blank if each.thumb is None else each.thumb for each in seen])
    for one, first in enumerate(seen):
        firsts = np.repeat(thumbs[one : one + 1], len(seen), axis=0)
        alike = correlations(firsts, thumbs) >= MIN_CORRELATION
        for other, second in enumerate(seen[:one]):
            if first.thumb is None or second.thumb is None:
                continue
            bits = int(first.perceptual_hash, 16) ^ int(second.perceptual_hash, 16)
            copies = (first.content_hash, bits) == (second.content_hash, 0)
            near[one, other] = bits.bit_count() <= MAX_BITS and (alike[other] or copies)
    labels = connected_components(near, directed=False)[1]
    return np.unique(labels, return_inverse=True)[1].tolist()


@pytest.mark.parametrize(
    ("pictures", "most_bits", "noise"),
    [(4, 0, 60), (3, 3, 60), (6, 12, 20), (25, 8, 70), (120, 2, 10), (5, 0, 90)],
)
def test_groups_are_those_of_all_pairs(pictures: int, most_bits: int, noise: int) -> None:
    seen = variants(160, pictures, most_bits, noise, seed=pictures)
    found, expected = near_duplicate_groups(seen).tolist(), groups_of_all_pairs(seen)
    assert len(set(found)) == len(set(expected)) == len(set(zip(found, expected, strict=True)))


def test_many_copies_of_few_pictures_meet_few_of_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []

    def counted(ones: Picture, others: Picture) -> np.ndarray:
        compared.append(len(ones))
        return correlations(ones, others)

    monkeypatch.setattr(near_duplicates, "correlations", counted)
    seen = variants(4000, 4, 2, 5, seed=1)
    groups = near_duplicate_groups([one for number, one in enumerate(seen) if number % 4])
    assert len(set(groups.tolist())) == 4
    assert sum(compared) < 30_000  # of 1.1 million pairs that are near


def test_a_scan_says_what_an_image_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    path = tmp_path / "turned.jpg"
    Image.fromarray(picture(0, 400, 300)).save(path, exif=exif)
    seen = scan_image(path, None, 0.0)
    assert (seen.width, seen.height, seen.problem) == (300, 400, "")
    assert len(seen.content_hash) == 64
    assert len(seen.perceptual_hash) == 16
    path.write_bytes(path.read_bytes()[:-400])
    assert "truncated" in scan_image(path, None, 0.0).problem
    assert scan_image(tmp_path / "none.jpg", None, 0.0).problem == "No such file or directory"
