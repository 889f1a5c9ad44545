"""Odd folders and tables: what they hold is found, told or refused, never lost."""

import os
from pathlib import Path
from typing import Any

import pytest

from carray.data.manifest import Manifest
from carray.data.preparation.prepare import prepare
from carray.data.preparation.sources import list_source
from carray.data.preparation.sources.listing import walk_images
from carray.errors import DataError
from tests.data.pictures import image_folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_folder(tmp_path_factory.mktemp("odd") / "photos", {"a": 4, "b": 4})


def table_of(path: Path, cells: str, header: str = "id,label", ids: str = "{}/{:02d}.jpg") -> Path:
    """A table with a row for each of the photos; `cells` is what follows its id."""
    rows = [f"{ids.format(name, n)}{cells.format(name)}" for name in "ab" for n in range(4)]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_links_that_lead_back_are_not_followed(photos: Path, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "cars", {"a": 1, "b": 1})
    (folder / "a" / "up").symlink_to("..")
    (folder / "a" / "self").symlink_to(".")
    (folder / "a" / "more").symlink_to(photos / "a")
    found = [path.relative_to(folder).as_posix() for path in walk_images(folder / "a")[0]]
    assert found == ["a/00.jpg", *(f"a/more/{n:02d}.jpg" for n in range(4))]


def test_two_folders_that_link_to_each_other_are_walked_once(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "cars", {"a": 1, "b": 1})
    (folder / "a" / "b").symlink_to("../b")
    (folder / "b" / "a").symlink_to("../a")
    found = [path.relative_to(folder).as_posix() for path in walk_images(folder / "a")[0]]
    assert found == ["a/00.jpg", "a/b/00.jpg"]


def test_a_folder_that_cannot_be_read_is_refused_not_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = image_folder(tmp_path / "cars", {"a": 1, "a/closed": 1})
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=r"a/closed can't be read \(Permission denied\): make"):
        walk_images(folder)
    assert len(walk_images(folder, all_of_it=False)[0]) == 1


def test_a_pipe_is_no_image(photos: Path, tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "cars", {"a": 4, "b": 4})
    os.mkfifo(folder / "a" / "pipe.jpg")
    manifest = prepare(folder, tmp_path / "data", blend_size=0)
    assert manifest.images.set_index("image_id").loc["a/pipe.jpg", "excluded"] == (
        "unreadable: no file, but a pipe or a device"
    )


def test_a_line_break_in_a_label_is_a_blank(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "t.csv", ',"Audi\n{}"')
    assert {one.label for one in list_source(table, photos).source_images} == {"Audi a", "Audi b"}


def test_rows_may_end_with_a_separator(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "t.csv", ",{},")
    found = {one.image_id: one.label for one in list_source(table, photos).source_images}
    assert found["b/03.jpg"] == "b"
    with pytest.raises(DataError, match=r"have 3 cells, its header 2: name every column"):
        list_source(table_of(tmp_path / "t.csv", ",{}, Van"), photos)


def test_absolute_ids_are_found_below_the_image_folder(photos: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(photos)
    for folder in (photos, link):
        table = table_of(tmp_path / "t.csv", ",{}", ids=f"{folder}/{{}}/{{:02d}}.jpg")
        assert [one.problem for one in list_source(table, photos).source_images] == [""] * 8


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (",{},0.1,0.1,0.6,0.9", "are shares of the images' sides, pixels are needed"),
        (",{},9,9,3,3", "has none to use .8 boxes are none and passed by, as a/00.jpg's"),
        (",{},,,,", "has none to use .a CSV's are its columns x1, y1, x2, y2"),
    ],
)
def test_boxes_that_cut_nothing_are_refused(
    photos: Path, tmp_path: Path, cells: str, why: str
) -> None:
    table = table_of(tmp_path / "t.csv", cells, "id,label,x1,y1,x2,y2")
    with pytest.raises(DataError, match=why):
        prepare(table, tmp_path / "data", images=photos, crop="box")


def test_images_without_a_box_among_others_are_told(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "t.csv", ",{},1,1,40,30", "id,label,x1,y1,x2,y2")
    table.write_text(table.read_text().replace("b/02.jpg,b,1,1,40,30", "b/02.jpg,b,40,1,1,30"))
    manifest = prepare(table, tmp_path / "data", images=photos, crop="box", blend_size=0)
    odd, whole = manifest.settings.notes
    assert odd.startswith("1 box is none and passed by, as b/02.jpg's (40, 1, 1, 30)")
    assert whole == "1 image stays whole for want of a box, as b/02.jpg"


def test_classes_that_differ_only_by_case_are_told(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "cars", {"Audi TT": 4, "audi  tt": 4, "Audi A4": 4})
    [note] = prepare(folder, tmp_path / "data", blend_size=0).settings.notes
    assert note.startswith("'Audi TT' and 'audi  tt' differ only by case or blanks")


def test_a_persons_own_table_is_not_overwritten(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path / "images.csv", ",{}")
    before = table.read_text()
    with pytest.raises(DataError, match=r"images\.csv that is no data folder's and would be lost"):
        prepare(table, tmp_path, images=photos, blend_size=0)
    assert table.read_text() == before
    with pytest.raises(DataError, match="is a file: name a folder"):
        prepare(photos, table, blend_size=0)
    prepare(photos, tmp_path / "data", blend_size=0)
    assert prepare(photos, tmp_path / "data", blend_size=0, seed=1).hash == (
        Manifest.load(tmp_path / "data").hash
    ), "a data folder may be prepared again"
