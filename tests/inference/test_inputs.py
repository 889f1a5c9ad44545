"""What `predict` is pointed at is read as `data prepare` reads it."""

import unicodedata
from pathlib import Path

import pytest

from carray.errors import DataError
from carray.inference.inputs import ImageList, find_images, runs_of
from carray.inference.submission import Sample
from carray.runs_folder import RunsFolder
from tests.data.pictures import picture, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `imgs/sub/car_0.jpg` to `car_2.jpg`."""
    for number in range(3):
        save(tmp_path / "imgs" / "sub" / f"car_{number}.jpg", picture(number, 16, 12))
    return tmp_path


def read(folder: Path, *lines: str, name: str = "list.csv") -> ImageList:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return find_images([folder / name])


@pytest.mark.parametrize(
    "lines",
    [
        ("path;note", "imgs/sub/car_0.jpg;x", "imgs/sub/car_1.jpg;x"),
        ("path", "imgs\\sub\\car_0.jpg", "imgs\\sub\\car_1.jpg"),
        ("image", "car_0.jpg", "car_1.jpg"),
        (",image_name", "0,imgs/sub/car_0.jpg", "1,imgs/sub/car_1.jpg"),
        ("id,photo", "2,car_0.JPG", "0,car_1.JPG"),
        ("image", "sub/car_0", "sub/car_1"),
        ("image", "/disk/other/imgs/sub/car_0.jpg", "/disk/other/imgs/sub/car_1.jpg"),
        ("imgs/sub/car_0.jpg", "imgs/sub/car_1.jpg"),
        ("car_0", "car_1"),
        ("photo,by", "car_0,Ann", "car_1,Bob"),
    ],
)
def test_tables_are_read_as_prepare_reads_them(folder: Path, lines: tuple[str, ...]) -> None:
    found = read(folder, *lines)
    assert [path.name for path in found.paths] == ["car_0.jpg", "car_1.jpg"]
    assert all(path.is_file() for path in found.paths)
    assert len(found.readings) == 1


def test_what_was_taken_is_said(folder: Path) -> None:
    found = read(folder, "path;xmin;ymin;xmax;ymax", "imgs/sub/car_0.jpg;-1;3;28;20")
    assert found.boxes == ((0, 3, 28, 20),)
    assert found.readings == (
        "list.csv: images from path, boxes from xmin and ymin and xmax and ymax; separated by "
        "semicolons",
    )


def test_two_columns_of_images_are_refused_with_a_cure_that_predict_has(folder: Path) -> None:
    with pytest.raises(DataError, match=r"front and rear .* different images: keep one of the two"):
        read(folder, "front,rear", "car_0.jpg,car_1.jpg", "car_1.jpg,car_2.jpg")


def test_lists_may_be_text_and_lead_out_of_their_folder(folder: Path) -> None:
    (folder / "lists").mkdir()
    found = read(folder / "lists", "../imgs/sub/car_2.jpg", name="list.txt")
    assert found.paths[0].is_file()
    assert found.names == ("../imgs/sub/car_2.jpg",)


def test_composed_names_find_decomposed_files(folder: Path) -> None:
    name = "쏘나타é"
    save(folder / f"{unicodedata.normalize('NFD', name)}.jpg", picture(9, 16, 12))
    assert read(folder, "path", f"{name}.jpg").paths[0].is_file()
    sample = folder / "sample.csv"
    sample.write_text(f"Id;Category\n{name};x\n", encoding="utf-8")
    matched = Sample.read(sample).matched(find_images([folder]))
    assert matched.names == (name,)
    assert matched.paths[0].is_file()


def test_names_that_may_be_two_images_are_refused(folder: Path) -> None:
    save(folder / "other" / "car_0.jpg", picture(7, 16, 12))
    with pytest.raises(DataError, match=r"1 name in .* several images, the first is 'car_0.jpg'"):
        read(folder, "path", "car_0.jpg", "car_1.jpg")


def test_names_that_are_nowhere_are_kept_to_be_told(folder: Path) -> None:
    found = read(folder, "path", "imgs/sub/car_0.jpg", "gone.jpg", "/x/Audi/car_1.jpg")
    assert [path.is_file() for path in found.paths] == [True, False, False]


def test_brackets_in_names_stay_what_they_are(folder: Path) -> None:
    for number, name in enumerate(("car[1].jpg", "car1.jpg")):
        save(folder / "b" / name, picture(number, 16, 12))
    assert read(folder / "b", "path", "car[1]").paths[0].name == "car[1].jpg"


def test_a_packages_own_runs_folder_is_the_one_that_it_lies_in(tmp_path: Path) -> None:
    package = tmp_path / "mine" / "models" / "toy"
    (tmp_path / "mine" / "studies").mkdir(parents=True)
    assert runs_of(package, None).path == tmp_path / "mine"
    assert runs_of(package, tmp_path / "other").path == tmp_path / "other"
    assert runs_of(tmp_path / "copied" / "toy", None) == RunsFolder.at()


def test_files_that_bear_one_name_are_told_apart(folder: Path) -> None:
    others = [save(folder / f"more {n}" / "car_0.jpg", picture(7 + n, 16, 12)) for n in range(2)]
    found = find_images([*others, folder / "imgs" / "sub", others[0]])
    twice = folder / "more 0" / "car_0.jpg"
    assert found.names == (
        str(twice),
        str(folder / "more 1" / "car_0.jpg"),
        str(folder / "imgs" / "sub" / "car_0.jpg"),
        *("car_1.jpg", "car_2.jpg"),
        str(twice),
    )
    assert find_images([others[0], others[0]]).names == ("car_0.jpg", "car_0.jpg")
