"""Near-duplicates are found, and nothing else."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from carray.data.duplicates import correlation, near_duplicate_groups
from carray.data.scan import Seen, scan_image, scan_images
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
    seen = [Seen("", str(n), f"{value:016x}", 1, 1, thumb) for n, value in enumerate(hashes)]
    assert near_duplicate_groups(seen).tolist() == [0, 0, 0, 1]


def test_an_equal_hash_of_another_picture_is_no_duplicate() -> None:
    seen = [Seen("", str(seed), "00ff00ff00ff00ff", 1, 1, picture(seed, 32, 32)) for seed in (1, 2)]
    assert near_duplicate_groups(seen).tolist() == [0, 1]


def test_flat_pictures_are_not_one_group(tmp_path: Path) -> None:
    flat = [save(tmp_path / f"{v}.png", np.full((40, 40, 3), v, np.uint8)) for v in (10, 90, 200)]
    groups = near_duplicate_groups(scan_images(flat, [None] * 3, 0.0))
    assert len(set(groups.tolist())) == 3


def test_unreadable_images_stand_alone() -> None:
    assert near_duplicate_groups([Seen(problem="broken"), Seen(problem="broken")]).tolist() == [
        0,
        1,
    ]


def test_correlation_ignores_brightness() -> None:
    pixels = picture(4, 32, 32) // 2
    assert correlation(pixels, pixels + 40) == pytest.approx(1.0)
    assert correlation(pixels, 255 - pixels) == pytest.approx(-1.0)


def test_ten_thousand_images_are_compared_in_seconds() -> None:
    rng = np.random.default_rng(0)
    thumb = picture(0, 32, 32)
    values = rng.integers(0, 2**63, 10_000)
    seen = [Seen("", str(n), f"{value:016x}", 1, 1, thumb) for n, value in enumerate(values)]
    start = time.monotonic()
    groups = near_duplicate_groups(seen)
    assert time.monotonic() - start < 10
    assert len(set(groups.tolist())) > 9_900


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
