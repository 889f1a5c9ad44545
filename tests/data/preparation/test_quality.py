"""What is cut from one file never straddles two splits."""

from pathlib import Path

import numpy as np
import pytest

from carray.data.manifest import Manifest
from carray.data.preparation.prepare import prepare
from carray.data.preparation.quality import LabelledImage, with_whole_files
from carray.data.preparation.scan_cache import ImageScan
from carray.data.preparation.sources import SourceImage
from carray.errors import DataError
from tests.data.pictures import image_folder, picture, save

CARS_OF_A_PHOTO = 3


def car_parks(folder: Path, num_photos: int, split_of: dict[tuple[int, int], str]) -> Path:
    """A table of photographs with cars side by side, each of its own box and class."""
    rows = ["image,label,split,x1,y1,x2,y2"]
    for photo in range(num_photos):
        cars = [picture(photo * CARS_OF_A_PHOTO + car) for car in range(CARS_OF_A_PHOTO)]
        save(folder / f"{photo:02d}.png", np.concatenate(cars, axis=1))
        for car in range(CARS_OF_A_PHOTO):
            x1, x2, split = 48 * car, 48 * car + 48, split_of.get((photo, car), "")
            rows.append(f"{photo:02d}.png,{'ab'[(photo + car) % 2]},{split},{x1},0,{x2},36")
    table = folder / "cars.csv"
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return table


def straddling(manifest: Manifest, column: str) -> int:
    """How many files are in two splits or folds."""
    return int((manifest.included.groupby("content_hash")[column].nunique() > 1).sum())


def test_boxes_of_one_photograph_share_their_split_and_fold(tmp_path: Path) -> None:
    table = car_parks(tmp_path / "photos", 20, {})
    for seed in range(3):
        manifest = prepare(table, tmp_path / "data", crop="box", margin=0, folds=3, seed=seed)
        assert len(manifest.included) == 20 * CARS_OF_A_PHOTO
        assert straddling(manifest, "split") == straddling(manifest, "fold") == 0
        assert not any("two labels" in note for note in manifest.settings.notes)


def test_a_source_that_tears_a_photograph_apart_is_told_so(tmp_path: Path) -> None:
    own = {(photo, car): "test" for photo in range(4) for car in range(CARS_OF_A_PHOTO)}
    table = car_parks(tmp_path / "photos", 20, {**own, (4, 0): "test"})
    manifest = prepare(table, tmp_path / "data", crop="box", margin=0, val_size=0.2, blend_size=0)
    out = manifest.images[manifest.images["excluded"] != ""]
    assert dict(zip(out["image_id"], out["excluded"], strict=True)) == {
        f"04.png#{number}": "leak: cut from one file with 04.png in test" for number in (2, 3)
    }
    assert "2 images leak between the source's own splits" in manifest.settings.notes[0]
    assert straddling(manifest, "split") == 0


def test_a_class_that_a_split_lacks_is_named(tmp_path: Path) -> None:
    own = {(photo, car): "test" for photo in (0, 2) for car in (0, 2)} | {(0, 1): "train"}
    table = car_parks(tmp_path / "photos", 20, own)
    manifest = prepare(table, tmp_path / "data", crop="box", margin=0, val_size=0.2, blend_size=0)
    assert "test has no image of 'b'" in manifest.settings.notes


def test_boxes_that_are_not_cut_are_a_conflict_with_a_cure(tmp_path: Path) -> None:
    table = car_parks(tmp_path / "photos", 4, {})
    with pytest.raises(DataError, match="under 'a' and 'b'; --crop box tells its boxes apart"):
        prepare(table, tmp_path / "data")


def test_groups_and_files_are_joined_through_one_another() -> None:
    files = ["x", "y", "y", "z", "z", "x", "w"]
    near = np.array([0, 1, 2, 2, 3, 4, 5])
    images = [
        LabelledImage(SourceImage(str(row), Path(file), "a"), "a", ImageScan("", file))
        for row, file in enumerate(files)
    ]
    assert with_whole_files(images, near).tolist() == [0, 1, 1, 1, 1, 0, 2]
    excluded = [LabelledImage(one.source_image, "a", one.seen, "missing") for one in images]
    assert with_whole_files(excluded, np.arange(7)).tolist() == [*range(7)]


def test_a_class_whose_images_are_all_flawed_is_left_out_as_too_small(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "in", {"a": 6, "b": 6, "broken": 2})
    for file in (source / "broken").iterdir():
        file.write_bytes(b"")
    made = prepare(source, tmp_path / "out", min_images=3)
    assert made.classes == ("a", "b")
    why = "left out: its class has fewer than 3 images; unreadable: the file is empty"
    assert made.images["excluded"].tolist().count(why) == 2
