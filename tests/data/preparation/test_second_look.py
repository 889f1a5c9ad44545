"""Copies are found whatever was done to them; different subjects by one rig are kept."""

from pathlib import Path

import numpy as np
import pytest
from numpy.random import default_rng

from carray.data.preparation.near_duplicates import MAX_CHAIN, near_duplicate_groups
from carray.data.preparation.prepare import prepare
from carray.data.preparation.quality import LabelledImage, group_images
from carray.data.preparation.scan import scan_image
from carray.data.preparation.scan_cache import ImageScan
from carray.data.preparation.sources import SourceImage
from carray.errors import DataError
from tests.data.pictures import Picture, image_folder, picture, save


def photo(seed: int, width: int = 160, height: int = 120) -> Picture:
    """A picture with large structure and small marks, as photographs have."""
    numbers = default_rng(seed)
    out = picture(seed, width, height).copy()
    for _ in range(60):
        top, left = numbers.integers(0, height - 12), numbers.integers(0, width - 12)
        high, wide = numbers.integers(3, 12, 2)
        out[top : top + high, left : left + wide] = numbers.integers(0, 256, 3)
    return out


def rig(seed: int) -> Picture:
    """Another subject before the same background."""
    out = photo(1000)
    out[22:98, 30:130] = photo(seed, 100, 76)
    return out


def cleared(pixels: Picture) -> Picture:
    out = np.full_like(pixels, 255)
    out[12:108, 14:146] = pixels[12:108, 14:146]
    return out


CHANGES = {
    "mirrored": lambda pixels: pixels[:, ::-1],
    "cut": lambda pixels: pixels[5:117, 3:152],
    "background removed": cleared,
    "brighter": lambda pixels: np.clip(pixels * 1.25, 0, 255).astype(np.uint8),
}


def groups_of(paths: list[Path], labels: str) -> list[int]:
    images = [
        LabelledImage(SourceImage(path.name, path, label), label, scan_image(path, None, 0.0))
        for path, label in zip(paths, labels, strict=True)
    ]
    return [int(group) for group in group_images(images)]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_copy_is_found_whatever_was_done_to_it(change: object, tmp_path: Path) -> None:
    assert callable(change)
    paths = [save(tmp_path / f"{n}.png", photo(n)) for n in range(3)]
    paths += [save(tmp_path / f"c{n}.png", change(photo(n))) for n in range(3)]
    assert groups_of(paths, "aaaaaa") == [0, 1, 2, 0, 1, 2]


def test_different_subjects_by_one_rig_are_kept(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png", rig(n)) for n in range(5)]
    assert groups_of(paths, "aaaaa") == [0, 1, 2, 3, 4]


def test_two_labels_are_evidence_against_a_copy(tmp_path: Path) -> None:
    """A subject whose colours differ a little: one picture under one label, two under two."""
    other = photo(5).astype(np.int64)
    other[30:90, 30:130] += np.array([12, 0, -12])
    tinted = np.clip(other, 0, 255).astype(np.uint8)
    paths = [save(tmp_path / "0.png", photo(5)), save(tmp_path / "1.png", tinted)]
    assert groups_of(paths, "aa") == [0, 0]
    assert groups_of(paths, "ab") == [0, 1]
    assert groups_of([paths[0], save(tmp_path / "2.png", photo(5)[:, ::-1])], "ab") == [0, 0]


def test_a_group_is_not_chained_without_bound() -> None:
    thumb = picture(0, 32, 32)
    seen = [ImageScan("", str(n), f"{n:016x}", 1, 1, thumb) for n in range(30)]
    groups = near_duplicate_groups(seen, lambda one, other, _: abs(one - other) <= 1)
    assert 1 < np.bincount(groups).max() <= MAX_CHAIN


@pytest.mark.parametrize(("mode", "left_out"), [("off", 0), ("report", 0), ("exclude", 1)])
def test_what_is_done_with_copies_can_be_chosen(tmp_path: Path, mode: str, left_out: int) -> None:
    source = tmp_path / "in"
    for split, seed in (("train", 0), ("test", 20)):
        image_folder(source / split, {"a": 3, "b": 3}, first_seed=seed)
    save(source / "train" / "a" / "x.png", photo(50))
    save(source / "test" / "a" / "x.png", photo(50)[:, ::-1])
    made = prepare(source, tmp_path / "out", near_duplicates=mode)
    assert int((made.images["excluded"] != "").sum()) == left_out
    assert (tmp_path / "out" / "near_duplicates.html").exists() == (mode != "off")


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'on' must be off, report or exclude"):
        prepare(tmp_path, tmp_path / "out", near_duplicates="on")
