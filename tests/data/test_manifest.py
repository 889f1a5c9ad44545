"""A data folder is read whole or refused with a cure."""

import csv
import json
import shlex
import shutil
from pathlib import Path

import pytest

from carray.data.manifest import Manifest
from carray.data.preparation.prepare import prepare
from carray.errors import DataError
from tests.data.pictures import image_folder

NAMES = ("NA", "Ram C/V, 2012", 'two\nlines "quoted"', "소나타 📷", "3")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """20 images under names that tables and paths like to break."""
    image_folder(tmp_path / "cars", {"all": 40})
    with (tmp_path / "cars.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [(f"{number:02d}", NAMES[number % 5]) for number in range(40)]
        csv.writer(file).writerows([("id", "label"), *rows])
    prepare(tmp_path / "cars.csv", tmp_path / "data", images=tmp_path / "cars")
    return tmp_path / "data"


@pytest.mark.parametrize("folder", ["none", "."])
def test_a_folder_that_was_never_prepared_names_the_command(tmp_path: Path, folder: str) -> None:
    with pytest.raises(DataError, match="carray data prepare SOURCE --out"):
        Manifest.load(tmp_path / folder)


def test_the_command_for_a_folder_with_spaces_is_one_for_a_shell(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        Manifest.load(tmp_path / "my cars (1)")
    command = str(caught.value).split("`")[1]
    assert shlex.split(command)[-1] == str(tmp_path / "my cars (1)")


def test_any_class_name_survives_on_one_line(data: Path) -> None:
    manifest, names = Manifest.load(data), sorted(name.replace("\n", " ") for name in NAMES)
    assert sorted(manifest.classes) == names
    assert sorted(set(manifest.images["label"])) == names
    assert all(Path(path).exists() for path in manifest.images["path"])


def test_rows_number_the_included_images(data: Path) -> None:
    manifest = Manifest.load(data)
    table = manifest.included
    assert table.index.tolist() == list(range(len(table)))
    for split in ("train", "val", "test"):
        assert (table["split"].to_numpy()[manifest.rows(split)] == split).all()
    labels = [manifest.classes[index] for index in manifest.labels]
    assert labels == table["label"].tolist()
    with pytest.raises(DataError, match="'dev' is no split"):
        manifest.rows("dev")


def test_an_edited_table_is_refused(data: Path) -> None:
    table = data / "images.csv"
    table.write_text(table.read_text().replace(",train,", ",test,", 1))
    with pytest.raises(DataError, match="was it edited"):
        Manifest.load(data)


@pytest.mark.parametrize(
    ("text", "why"),
    [("{", "can't be read"), ("[]", "can't be read"), ('{"version": 99}', "version 99")],
)
def test_a_broken_or_foreign_manifest_is_refused(data: Path, text: str, why: str) -> None:
    (data / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=rf"{why}.*prepare. again"):
        Manifest.load(data)


def test_a_lost_table_is_refused(data: Path) -> None:
    (data / "images.csv").unlink()
    with pytest.raises(DataError, match=r"prepare. again"):
        Manifest.load(data)


def test_images_and_data_moved_together_are_found(data: Path, tmp_path: Path) -> None:
    before = Manifest.load(data)
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(tmp_path / "cars", moved / "cars")
    shutil.move(data, moved / "data")
    after = Manifest.load(moved / "data")
    assert after.hash == before.hash
    assert all(Path(path).exists() for path in after.images["path"])


def test_the_file_is_readable_in_any_script(data: Path) -> None:
    text = (data / "manifest.json").read_text(encoding="utf-8")
    assert "소나타" in text
    assert json.loads(text)["settings"]["kind"] == "csv"
