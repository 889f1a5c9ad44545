"""Every kind of source is listed as it is, and what is wrong with it is said."""

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from carray.data.preparation.sources import Listing, list_source
from carray.data.preparation.sources.listing import natural_key
from carray.errors import DataError
from tests.data.pictures import image_folder, picture, save


def by_id(listing: Listing) -> dict[str, tuple[str, str]]:
    return {one.image_id: (one.label, one.split) for one in listing.source_images}


def test_a_folder_without_splits(tmp_path: Path) -> None:
    image_folder(tmp_path, {"Pip": 2, "현대 소나타": 1})
    (tmp_path / "flaws.csv").write_text("not a class")
    (tmp_path / "Pip" / ".hidden.jpg").write_text("not an image")
    (tmp_path / "Pip" / "notes.txt").write_text("not an image")
    listing = list_source(tmp_path)
    assert listing.kind == "folder"
    assert by_id(listing) == {
        "Pip/00.jpg": ("Pip", ""),
        "Pip/01.jpg": ("Pip", ""),
        "현대 소나타/00.jpg": ("현대 소나타", ""),
    }
    assert any("1 file in" in note for note in listing.notes)


def test_names_that_a_system_stores_decomposed_are_composed(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "쏘나타")
    image_folder(tmp_path, {decomposed: 1, "Pip": 1})
    assert {one.label for one in list_source(tmp_path).source_images} == {"쏘나타", "Pip"}
    assert all(one.path.exists() for one in list_source(tmp_path).source_images)


@pytest.mark.parametrize("val_name", ["val", "valid", "Validation"])
def test_a_folder_with_splits(tmp_path: Path, val_name: str) -> None:
    for number, split in enumerate(("train", val_name, "test")):
        image_folder(tmp_path / split, {"a": 1, "b": 1}, first_seed=10 * number)
    image_folder(tmp_path, {"extra": 1})
    listing = list_source(tmp_path)
    assert listing.kind == "split folder"
    assert sorted({one.split for one in listing.source_images}) == ["test", "train", "val"]
    assert by_id(listing)[f"{val_name}/a/00.jpg"] == ("a", "val")
    assert listing.notes == ("extra/ is no split and was passed by",)


@pytest.mark.parametrize("where", ["", "train"])
def test_an_empty_class_folder_is_named(tmp_path: Path, where: str) -> None:
    image_folder(tmp_path / where, {"a": 1, "b": 1})
    (tmp_path / where / "Lumen").mkdir()
    with pytest.raises(DataError, match=r"'.*Lumen'.*holds no image"):
        list_source(tmp_path)


def test_a_missing_source_and_a_folder_without_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no"):
        list_source(tmp_path / "none")
    save(tmp_path / "flat" / "a.jpg", picture(0))
    with pytest.raises(DataError, match="no class folders"):
        list_source(tmp_path / "flat")
    with pytest.raises(DataError, match="no folder and no CSV"):
        list_source(tmp_path / "flat" / "a.jpg")
    with pytest.raises(DataError, match="go with a CSV"):
        list_source(tmp_path / "flat", id_column="Id")


def kaggle(tmp_path: Path, header: str = "Id,Category", ending: str = "") -> Path:
    for number in range(3):
        save(tmp_path / "train" / "deep" / f"{number}.jpg", picture(number))
    table = tmp_path / "train.csv"
    rows = "".join(f"{n}{ending},{n % 2}\n" for n in range(3))
    table.write_text(f"{header}\n{rows}", encoding="utf-8-sig")
    return table


@pytest.mark.parametrize("ending", ["", ".jpg"])
def test_a_kaggle_table_with_and_without_file_endings(tmp_path: Path, ending: str) -> None:
    listing = list_source(kaggle(tmp_path, ending=ending), tmp_path / "train")
    assert listing.kind == "csv"
    assert by_id(listing) == {
        "deep/0.jpg": ("0", ""),
        "deep/1.jpg": ("1", ""),
        "deep/2.jpg": ("0", ""),
    }


def test_columns_can_be_named_and_misspelt_ones_are_corrected(tmp_path: Path) -> None:
    table = kaggle(tmp_path, header="photo,kind")
    with pytest.raises(
        DataError, match=r"hold the label; its columns are photo, kind.*--label-col"
    ):
        list_source(table)
    with pytest.raises(DataError, match="no column 'kinf'; did you mean 'kind'"):
        list_source(table, id_column="photo", label_column="kinf")
    assert len(list_source(table, None, "photo", "kind").source_images) == 3


def test_a_table_with_splits_boxes_slashes_and_missing_files(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(tmp_path / f"{name}.png", picture(ord(name)))
    table = tmp_path / "cars.csv"
    table.write_text(
        "image;label;split;x1;y1;x2;y2\n"
        "a.png;Ram C/V, Van;train;1;2;30;20\n"
        "b.png;NA;valid;;;;\n"
        "c.png;NA;holdout;0;0;5;5\n"
        "d.png;NA;test;0;0;5;5\n",
        encoding="utf-8",
    )
    listing = list_source(table)
    found = {one.image_id: one for one in listing.source_images}
    assert found["a.png"].label == "Ram C/V, Van"
    assert (found["a.png"].split, found["a.png"].box) == ("train", (1, 2, 30, 20))
    assert (found["b.png"].label, found["b.png"].split, found["b.png"].box) == ("NA", "val", None)
    assert found["c.png"].problem == "the split 'holdout' is unknown"
    assert found["d.png"].problem == "no such file"


def test_an_id_listed_twice_stays_two_rows(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(0))
    (tmp_path / "t.csv").write_text("id,label\na,x\na,y\n")
    listing = list_source(tmp_path / "t.csv")
    assert by_id(listing) == {"a.png": ("x", ""), "a.png#2": ("y", "")}


def test_one_name_in_two_folders_is_found_by_its_label(tmp_path: Path) -> None:
    image_folder(tmp_path, {"x": 1, "y": 1})
    (tmp_path / "t.csv").write_text("id,label\n00.jpg,x\n00.jpg,y\n00.jpg,z\n")
    found = {one.label: one for one in list_source(tmp_path / "t.csv").source_images}
    assert found["x"].path.parent.name == "x"
    assert found["y"].path.parent.name == "y"
    assert found["z"].problem == "2 files have this name"


def test_a_table_whose_images_are_elsewhere_is_refused(tmp_path: Path) -> None:
    table = kaggle(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no image of .* is in .*empty"):
        list_source(table, tmp_path / "empty")
    with pytest.raises(DataError, match="doesn't exist"):
        list_source(table, tmp_path / "none")
    korean = tmp_path / "euc.csv"
    korean.write_bytes("id,label\n1,쏘나타\n".encode("cp949"))
    with pytest.raises(DataError, match="UTF-8"):
        list_source(korean)


CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "Acura RL Sedan 2012")


def devkit(
    folder: Path,
    labelled_test: bool = True,
    nested: bool = False,
    classes: tuple[str, str, str] = CARS,
) -> Path:
    """Stanford Cars as its archives unpack: 6 training and 3 test images of 3 classes."""
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2"]
    (folder / "devkit").mkdir(parents=True)
    names = np.empty((1, 3), object)
    names[0] = classes
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    for split, count, labels in (("train", 6, True), ("test", 3, labelled_test)):
        kinds = [*((name, "O") for name in fields), *([("class", "O")] if labels else [])]
        rows = np.empty((1, count), dtype=[*kinds, ("fname", "O")])
        images = folder / f"cars_{split}" / (f"cars_{split}" if nested else "")
        for number in range(count):
            name = f"{number + 1:05d}.jpg"
            save(images / name, picture(number + (50 if split == "test" else 0), 80, 60))
            numbers = (11, 6, 70, 50, *((number % 3 + 1,) if labels else ()))
            rows[0, number] = (*(np.array([[n]], np.uint16) for n in numbers), name)
        suffix = "_withlabels" if split == "test" and labels else ""
        place = folder if suffix else folder / "devkit"
        savemat(place / f"cars_{split}_annos{suffix}.mat", {"annotations": rows})
    return folder


@pytest.mark.parametrize("nested", [False, True])
def test_stanford_cars_with_boxes_and_its_own_test(tmp_path: Path, nested: bool) -> None:
    listing = list_source(devkit(tmp_path, nested=nested))
    assert listing.kind == "devkit"
    assert listing.class_order == CARS
    assert [one.split for one in listing.source_images] == ["test"] * 3 + ["train"] * 6
    first = next(one for one in listing.source_images if one.split == "train")
    assert first.label == CARS[0]
    assert first.box == (10, 5, 70, 50), "theirs count from 1 and include the last pixel"
    assert all(one.problem == "" for one in listing.source_images)


def test_stanford_cars_without_test_labels_leaves_test_out_and_says_so(tmp_path: Path) -> None:
    listing = list_source(devkit(tmp_path, labelled_test=False))
    assert {one.split for one in listing.source_images} == {"train"}
    assert "cars_test_annos_withlabels.mat" in listing.notes[0]


def test_stanford_cars_incomplete_or_broken_is_refused(tmp_path: Path) -> None:
    devkit(tmp_path)
    train = tmp_path / "devkit" / "cars_train_annos.mat"
    train.write_bytes(b"no matlab")
    with pytest.raises(DataError, match="can't be read as Stanford Cars"):
        list_source(tmp_path)
    train.unlink()
    with pytest.raises(DataError, match=r"has no cars_train_annos\.mat"):
        list_source(tmp_path)


def test_classes_are_ordered_as_people_count() -> None:
    assert sorted(["10", "9", "b2", "b10", "a"], key=natural_key) == ["9", "10", "a", "b2", "b10"]


def test_a_row_shorter_than_the_header_has_no_label(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 2})
    table = tmp_path / "cars.csv"
    table.write_text("id,label\na/00.jpg,x\na/01.jpg\n")
    problems = {one.image_id: one.problem for one in list_source(table).source_images}
    assert problems == {"a/00.jpg": "", "a/01.jpg": "no label"}


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1})
    shutil.copy(tmp_path / "a" / "00.jpg", os.fsencode(tmp_path / "a") + b"/caf\xe9.jpg")
    with pytest.raises(DataError, match=r"caf\\xe9\.jpg' isn't UTF-8: rename"):
        list_source(tmp_path)
