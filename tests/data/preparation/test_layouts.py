"""Folders are read as what they are, and what was taken for what is said."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from carray.data.preparation.prepare import prepare
from carray.data.preparation.sources import Listing, list_source
from carray.data.preparation.sources.listing import split_of
from carray.errors import DataError
from tests.data.pictures import image_folder, picture, save


def seen(listing: Listing) -> set[tuple[str, str]]:
    return {(one.label, one.split) for one in listing.source_images}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("training_set", "train"),
        ("Train Images", "train"),
        ("cars_train", "train"),
        ("trainset", "train"),
        ("test-cars", "test"),
        ("Validation", "val"),
        ("bullet train", ""),
        ("train_test", ""),
        ("testarossa", ""),
        ("Seat Leon", ""),
    ],
)
def test_a_split_is_told_by_its_word_among_words_that_say_nothing(name: str, split: str) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize("names", [("training_set", "test_set"), ("Train Images", "Test Images")])
def test_folders_of_splits_by_other_names(tmp_path: Path, names: tuple[str, str]) -> None:
    for number, name in enumerate(names):
        image_folder(tmp_path / name, {"a": 1, "b": 1}, first_seed=number * 5)
    listing = list_source(tmp_path)
    assert seen(listing) == {(label, split) for label in "ab" for split in ("train", "test")}
    assert listing.notes == (f"taken for splits: {names[1]}/ for test, {names[0]}/ for train",)


def test_names_with_a_split_word_beside_others_stay_classes(tmp_path: Path) -> None:
    image_folder(tmp_path, {"train set": 1, "bus": 1})
    assert {label for label, _ in seen(list_source(tmp_path))} == {"train set", "bus"}


@pytest.mark.parametrize("names", [("train", "test"), ("training_set", "test_set")])
def test_splits_without_class_folders_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    image_folder(tmp_path, dict.fromkeys(names, 2))
    with pytest.raises(DataError, match="holds no class folders"):
        list_source(tmp_path)


def test_a_test_folder_without_labels_is_left_out(tmp_path: Path) -> None:
    image_folder(tmp_path / "train", {"a": 1, "b": 1})
    image_folder(tmp_path, {"test": 3}, first_seed=5)
    listing = list_source(tmp_path)
    assert {split for _, split in seen(listing)} == {"train"}
    assert "3 images without class folders" in listing.notes[0]


def test_classes_may_hold_their_own_splits(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        image_folder(tmp_path / name, {"train": 1, "test": 1}, first_seed=number * 5)
    assert seen(list_source(tmp_path)) == {(a, s) for a in "ab" for s in ("train", "test")}


@pytest.mark.parametrize("layout", ["{make}/{model}/{split}", "{make}/{split}/{model}"])
def test_splits_below_makes_and_models_are_splits_and_the_level_of_classes_is_said(
    tmp_path: Path, layout: str
) -> None:
    cars = (("Audi", "A4"), ("BMW", "X5"), ("BMW", "Z4"))
    for number, (make, model) in enumerate(cars):
        for other, split in enumerate(("train", "test")):
            name = layout.format(make=make, model=model, split=split)
            image_folder(tmp_path, {name: 1}, first_seed=2 * number + other)
    listing = list_source(tmp_path)
    assert seen(listing) == {(a, s) for a in ("Audi", "BMW") for s in ("train", "test")}
    assert "first, as 'Audi' (2 classes); 3 classes 1 level down: --level 2" in listing.notes[-1]
    models = {" ".join(car) for car in cars}
    assert seen(list_source(tmp_path, level=2)) == {
        (a, s) for a in models for s in ("train", "test")
    }


def test_the_only_folder_is_read_where_it_holds_splits_and_named_where_it_holds_classes(
    tmp_path: Path,
) -> None:
    image_folder(tmp_path / "one" / "data" / "train", {"a": 1, "b": 1})
    listing = list_source(tmp_path / "one")
    assert listing.images_folder == tmp_path / "one" / "data"
    assert listing.notes == ("data/ is the only folder and was read as the source",)
    image_folder(tmp_path / "two" / "Audi", {"A4": 1, "Q5": 1})
    with pytest.raises(DataError, match=r"only the class 'Audi'.*give .*Audi, or --level 2"):
        list_source(tmp_path / "two")


def test_folders_in_each_other_that_hold_nothing_else_are_gone_down(tmp_path: Path) -> None:
    image_folder(tmp_path / "one" / "a" / "b" / "train", {"x": 1, "y": 1})
    assert list_source(tmp_path / "one").notes == (
        "a/b/ is the only folder and was read as the source",
    )
    two = tmp_path / "two"
    image_folder(two / "a" / "b", {"x": 1, "y": 1})
    with pytest.raises(DataError, match=r"only the class 'b'.*give .*a/b, or --level 3"):
        list_source(two)
    assert {label for label, _ in seen(list_source(two, level=3))} == {"a b x", "a b y"}


def test_folders_that_all_hold_the_same_names_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate(("fold1", "fold2")):
        image_folder(tmp_path / name, {"Audi": 1, "BMW": 1}, first_seed=number * 5)
    with pytest.raises(DataError, match=r"two ways.* 1 where 'fold1'.*\(2 classes\), --level 2"):
        list_source(tmp_path)
    assert {label for label, _ in seen(list_source(tmp_path, level=1))} == {"fold1", "fold2"}
    assert len({label for label, _ in seen(list_source(tmp_path, level=2))}) == 4


@pytest.mark.parametrize("rest", [("a", "b"), ("a", "b", "c", "d", "x")])
def test_splits_by_unknown_words_are_refused_where_one_lacks_classes(
    tmp_path: Path, rest: tuple[str, ...]
) -> None:
    image_folder(tmp_path / "Lernen", dict.fromkeys("abcde", 1))
    image_folder(tmp_path / "Prüfen", dict.fromkeys(rest, 1), first_seed=9)
    with pytest.raises(DataError, match=r"as Lernen/a and Prüfen/a: .*is a split, call it train"):
        list_source(tmp_path)


def test_makes_that_share_a_few_models_are_classes(tmp_path: Path) -> None:
    for number, make in enumerate(("Mazda", "BMW", "Audi")):
        own = dict.fromkeys(("3", "6", *(f"{make}{each}" for each in range(4))), 1)
        image_folder(tmp_path / make, own, first_seed=number * 9)
    assert {label for label, _ in seen(list_source(tmp_path))} == {"Mazda", "BMW", "Audi"}


def test_a_folder_with_a_splits_name_among_classes_is_refused(tmp_path: Path) -> None:
    image_folder(tmp_path, {"Audi": 1, "BMW": 1, "test": 1})
    with pytest.raises(DataError, match=r"two ways: test among its folders .* give --level 1"):
        list_source(tmp_path)
    assert {label for label, _ in seen(list_source(tmp_path, level=1))} == {"Audi", "BMW", "test"}


def test_a_class_called_train_is_asked_about(tmp_path: Path) -> None:
    image_folder(tmp_path, {"Bus": 1, "Train": 1})
    with pytest.raises(DataError, match=r"two ways: Train among its folders .* give --level 1"):
        list_source(tmp_path)
    assert {label for label, _ in seen(list_source(tmp_path, level=1))} == {"Bus", "Train"}


@pytest.mark.parametrize("folder", ["", "train"])
def test_images_without_class_folders_are_told_of_the_table_beside_them(
    tmp_path: Path, folder: str
) -> None:
    image_folder(tmp_path, {"train": 2, "test": 1} if folder else {".": 2})
    for name in ("sample.csv", "train.csv"):
        (tmp_path / name).write_text("image,label\n0.jpg,a\n")
    with pytest.raises(DataError, match=r"give a folder per class, the table, as .*/train.csv --i"):
        list_source(tmp_path)


def test_a_class_that_goes_deeper_than_others_is_told(tmp_path: Path) -> None:
    image_folder(tmp_path, {"Audi/A4": 1, "Kia": 1})
    [note] = list_source(tmp_path).notes
    assert note == "folders in a class were taken as part of it, as Audi/A4"


def test_the_class_level_is_said_and_can_be_chosen(tmp_path: Path) -> None:
    image_folder(tmp_path / "Audi", {"A4/2010": 1, "Q5/2012": 1})
    image_folder(tmp_path / "BMW", {"M3/2011": 1, "X5/2013": 1}, first_seed=5)
    listing = list_source(tmp_path)
    assert {label for label, _ in seen(listing)} == {"Audi", "BMW"}
    assert listing.notes[-1] == (
        "class level: the first, as 'Audi' (2 classes); 4 classes 1 level down: --level 2; "
        "4 classes 2 levels down: --level 3"
    )
    models = list_source(tmp_path, level=2)
    assert {label for label, _ in seen(models)} == {"Audi A4", "Audi Q5", "BMW M3", "BMW X5"}
    assert not models.notes
    with pytest.raises(DataError, match="--level 4 asks for 4 levels"):
        list_source(tmp_path, level=4)


def test_system_folders_are_no_classes_and_named(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1, "__MACOSX": 1, "a/@eaDir": 1})
    (tmp_path / "lost+found").mkdir()
    listing = list_source(tmp_path)
    assert len(listing.source_images) == 2
    assert listing.notes[0].endswith("passed by: @eaDir, __MACOSX, lost+found")


def test_photographs_of_a_kind_that_is_not_read_are_named(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.HEIC").write_bytes(b"ftypheic")
    with pytest.raises(DataError, match=r"2 files there end in \.HEIC, which isn't read: save"):
        list_source(tmp_path)
    image_folder(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "notes.txt").write_text("")
    ends, others = list_source(tmp_path).notes
    assert ends == f"2 files in {tmp_path} passed by: .HEIC isn't read, save as JPEG or PNG"
    assert others == f"1 file in {tmp_path} passed by: no image"


def test_class_folders_without_an_image_are_told_by_what_is_in_them(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1})
    (tmp_path / "b").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "0.txt").write_text("0 0.5 0.5 1 1")
    with pytest.raises(DataError, match=r"folders 'b', 'labels' in .*\.txt.* away; .*remove b$"):
        list_source(tmp_path)


def test_an_archive_is_told_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "cars.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"is an archive: unpack it \(unzip cars.zip\)"):
        list_source(tmp_path / "cars.zip")


def one_file_devkit(folder: Path) -> None:
    kinds = [(name, object) for name in ("relative_im_path", "class", "test")]
    kinds += [(f"bbox_{edge}", object) for edge in ("x1", "y1", "x2", "y2")]
    rows = np.empty((1, 4), dtype=kinds)
    for number in range(4):
        rows[0, number] = (f"car_ims/{number}.jpg", 1 + number % 2, number // 2, 3, 4, 30, 22)
    names = np.array([["Audi A4 2010", "BMW M3 2012"]], dtype=object)
    folder.mkdir(exist_ok=True)
    savemat(folder / "cars_annos.mat", {"annotations": rows, "class_names": names})


def test_the_older_form_of_stanford_cars(tmp_path: Path) -> None:
    one_file_devkit(tmp_path)
    with pytest.raises(DataError, match=r"names images such as car_ims/0.jpg, and none.*cars_meta"):
        list_source(tmp_path)
    for number in range(4):
        save(tmp_path / "car_ims" / f"{number}.jpg", picture(number))
    listing = list_source(tmp_path)
    assert listing.class_order == ("Audi A4 2010", "BMW M3 2012")
    assert [one.split for one in listing.source_images] == ["train", "train", "test", "test"]
    assert listing.source_images[1].label == "BMW M3 2012"
    assert listing.source_images[0].box == (2, 3, 30, 22)


def test_a_class_that_is_left_out_whole_is_none(tmp_path: Path) -> None:
    image_folder(tmp_path / "in", {"Audi": 6, "BMW": 6, "Kia": 1})
    (tmp_path / "out.txt").write_text("Kia/00.jpg\n")
    made = prepare(tmp_path / "in", tmp_path / "named", exclude=tmp_path / "out.txt")
    assert made.classes == ("Audi", "BMW")
    assert "left out: Kia" in made.settings.notes[0]
    made = prepare(tmp_path / "in", tmp_path / "few", min_images=2)
    assert made.classes == ("Audi", "BMW")
    with pytest.raises(DataError, match="too few distinct images"):
        prepare(tmp_path / "in", tmp_path / "all")


def test_images_beside_the_class_folders_are_told(tmp_path: Path) -> None:
    image_folder(tmp_path, {"a": 1, "b": 1})
    save(tmp_path / "stray.jpg", picture(9))
    (note,) = list_source(tmp_path).notes
    assert note == "1 image lies beside the class folders, so without a class: stray.jpg"


def test_what_lies_in_place_of_class_folders_is_told(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", picture(1))
    with pytest.raises(DataError, match=r"but 1 image that no folder names, as 1\.jpg: give"):
        list_source(tmp_path)
    (tmp_path / "cars.zip").touch()
    with pytest.raises(DataError, match=r"but cars\.zip, which is to be unpacked first: give"):
        list_source(tmp_path)


def test_folders_that_differ_in_how_letters_are_stored_are_one_class_and_told(
    tmp_path: Path,
) -> None:
    image_folder(tmp_path, {"Citro\u00ebn": 2, "Citroe\u0308n": 2, "BMW": 1})
    listing = list_source(tmp_path)
    assert seen(listing) == {("Citro\u00ebn", ""), ("BMW", "")}
    assert len({one.image_id for one in listing.source_images}) == 5
    (note,) = listing.notes
    assert note.startswith("2 folders are named 'Citro\u00ebn', but for how letters are stored")


def test_a_class_that_only_test_holds_is_refused_with_its_place_and_its_twin(
    tmp_path: Path,
) -> None:
    for number, (split, twin) in enumerate({"train": "Audi", "test": "audi"}.items()):
        image_folder(tmp_path / "in" / split, {twin: 4, "BMW": 4}, first_seed=number * 9)
    why = r"in 'audi' \(0; 4 in test\).*--min-images.*'Audi' and 'audi' differ only by case"
    with pytest.raises(DataError, match=why):
        prepare(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
