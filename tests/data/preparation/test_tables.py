"""What a table says is read as it is meant, told, or refused with the way to say it."""

from pathlib import Path

import pytest

from carray.data.preparation.prepare import prepare
from carray.data.preparation.sources import Listing, list_source
from carray.data.preparation.sources.table_file import read_table
from carray.errors import DataError
from tests.data.pictures import image_folder, picture, save

SMALL = (16, 12)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`0.jpg` to `5.jpg`, and `sub/6.JPG`."""
    folder = tmp_path_factory.mktemp("tables") / "photos"
    for number in range(6):
        save(folder / f"{number}.jpg", picture(number, *SMALL))
    (folder / "sub").mkdir()
    save(folder / "6.jpg", picture(6, *SMALL)).rename(folder / "sub" / "6.JPG")
    return folder


def table_of(folder: Path, *lines: str) -> Path:
    path = folder / "t.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def told(listing: Listing) -> dict[str, str]:
    return {one.path.name: one.label for one in listing.source_images if not one.problem}


def splits(listing: Listing) -> dict[str, str]:
    return {one.path.name: one.split for one in listing.source_images}


def test_the_id_is_the_column_whose_cells_are_file_names(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path, "id,file_name,label", "0,1.jpg,a", "1,0.jpg,b", "2,2.jpg,a")
    listing = list_source(table, photos)
    assert told(listing) == {"1.jpg": "a", "0.jpg": "b", "2.jpg": "a"}
    assert listing.reading == (
        "image from file_name, label from label; separated by commas; not read: id"
    )
    assert told(list_source(table, photos, "id"))["0.jpg"] == "a", "a person's word goes first"


def test_a_column_of_file_names_needs_no_usual_name(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path, "name;photo;kind;label", "Ann;0.jpg;x;a", "Bob;1.jpg;x;b")
    listing = list_source(table, photos)
    assert told(listing) == {"0.jpg": "a", "1.jpg": "b"}
    assert listing.reading == (
        "image from photo, label from label; separated by semicolons; not read: name, kind"
    )


def test_a_table_in_utf_16_is_read_where_its_first_bytes_say_so(
    photos: Path, tmp_path: Path
) -> None:
    table = table_of(tmp_path, "image\tlabel", "0.jpg\t쏘나타", "1.jpg\tb")
    table.write_text(table.read_text("utf-8"), encoding="utf-16")
    assert told(list_source(table, photos)) == {"0.jpg": "쏘나타", "1.jpg": "b"}


def test_two_columns_that_name_other_images_are_refused(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path, "image,filename,label", "0.jpg,1.jpg,a", "1.jpg,2.jpg,b")
    with pytest.raises(DataError, match=r"image and filename .* different images: .*--id-column"):
        list_source(table, photos)
    table = table_of(tmp_path, "image,mask,label", "0.jpg,1.jpg,a", "1.jpg,2.jpg,b")
    assert told(list_source(table, photos)) == {"0.jpg": "a", "1.jpg": "b"}
    table = table_of(tmp_path, "id,image_id,label", "0,1,a", "1,2,b")
    with pytest.raises(DataError, match="id and image_id"):
        list_source(table, photos)


def test_make_model_and_year_are_asked_for_and_joined(photos: Path, tmp_path: Path) -> None:
    rows = ("0.jpg,Audi,A4,2010", "1.jpg,Audi,A4,2014", "2.jpg,Mazda,3,2012", "3.jpg,BMW,3,2011")
    table = table_of(tmp_path, "filename,make,model,year", *rows)
    with pytest.raises(DataError) as caught:
        list_source(table, photos)
    assert str(caught.value).endswith(
        "make the class together: say which, as --label-column make,model (3 classes) or "
        "--label-column make,model,year (4 classes) or --label-column model (2 classes)"
    )
    listing = list_source(table, photos, label_column="make,model,year")
    assert told(listing)["1.jpg"] == "Audi A4 2014"
    assert "label from make and model and year" in listing.reading
    assert told(list_source(table, photos, label_column="model"))["2.jpg"] == "3"
    with pytest.raises(DataError, match="no column 'yaer'; did you mean 'year'"):
        list_source(table, photos, label_column="make,yaer")


def test_a_label_that_lacks_a_part_is_none(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path, "image,make,model", "0.jpg,Audi,", "1.jpg,Audi,A4")
    problems = [one.problem for one in list_source(table, photos, None, "make,model").source_images]
    assert problems == ["no label", ""]


def test_labels_that_tell_other_classes_are_refused(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path, "image,class,class_name", "0.jpg,0,a", "1.jpg,1,b")
    assert told(list_source(table, photos)) == {"0.jpg": "0", "1.jpg": "1"}
    table = table_of(tmp_path, "image,label,category", "0.jpg,a,car", "1.jpg,b,car")
    with pytest.raises(DataError, match=r"category and label .* different classes: .*--label-col"):
        list_source(table, photos)


def test_numbers_of_splits_are_asked_for(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path, "image,label,split", "0.jpg,a,0", "1.jpg,b,1", "2.jpg,b,2")
    with pytest.raises(DataError, match=r"0, 1, 2 of the column split .* --split-words 0=train"):
        list_source(table, photos)
    listing = list_source(table, photos, split_words="0=train,1=val,2=test")
    assert splits(listing) == {"0.jpg": "train", "1.jpg": "val", "2.jpg": "test"}
    assert "split from split (0 for train, 1 for val, 2 for test)" in listing.reading
    with pytest.raises(DataError, match="--split-words '0=tarin' must be WORD=SPLIT"):
        list_source(table, photos, split_words="0=tarin")
    with pytest.raises(DataError, match="which are not the cells of one column"):
        list_source(table, photos, split_words="3=train")
    table = table_of(tmp_path, "image,label,split", "0.jpg,a,p1", "1.jpg,b,p2")
    with pytest.raises(DataError, match="perhaps --split-words p1=train,p2=val"):
        list_source(table, photos)


@pytest.mark.parametrize(
    ("name", "cells", "odd"),
    [
        ("partition", ("Training", "Validation"), "training for train, validation for val"),
        ("phase", ("train", "val"), ""),
        ("Usage", ("Train Images", "dev"), "dev for val, train images for train"),
        ("is_valid", ("False", "True"), "false for train, true for val"),
    ],
)
def test_other_columns_and_words_of_splits(
    photos: Path, tmp_path: Path, name: str, cells: tuple[str, str], odd: str
) -> None:
    rows = (f"0.jpg,a,{cells[0]}", f"1.jpg,b,{cells[1]}")
    listing = list_source(table_of(tmp_path, f"image,label,{name}", *rows), photos)
    assert splits(listing) == {"0.jpg": "train", "1.jpg": "val"}
    assert f"split from {name}{f' ({odd})' if odd else ''}" in listing.reading


def test_a_column_of_numbers_or_of_one_word_is_no_split(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path, "image,label,doors,kind", "0.jpg,a,0,train", "1.jpg,b,1,train")
    assert splits(list_source(table, photos)) == {"0.jpg": "", "1.jpg": ""}


def test_a_table_of_stanford_cars_with_its_test_flag_and_boxes(
    photos: Path, tmp_path: Path
) -> None:
    rows = ("0,photos/0.jpg,1,2,9,8,3,0", "1,photos/1.jpg,1,2,9,8,4,1")
    table = table_of(tmp_path, ",image,x1,y1,x2,y2,Class,test", *rows)
    listing = list_source(table, photos)
    assert splits(listing) == {"0.jpg": "train", "1.jpg": "test"}
    assert listing.source_images[0].box == (1, 2, 9, 8)
    assert "test (0 for train, 1 for test), box from x1 and y1 and x2 and y2" in listing.reading


def test_a_header_that_is_an_image_is_refused(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path, "0.JPG,a", "1.jpg,b")
    with pytest.raises(DataError, match=r"names an image \(0.JPG, a\), no columns: put a header"):
        list_source(table, photos)


@pytest.mark.parametrize(
    "path", ["/disk/other/cars/{}", "C:\\data\\cars\\{}", "https://host/cars/{}", "../photos/{}"]
)
def test_paths_of_another_machine_are_found_by_their_longest_end(
    photos: Path, tmp_path: Path, path: str
) -> None:
    rows = (f"{path.format('0.JPG')},a", f"{path.format('sub/6.jpg')},b")
    listing = list_source(table_of(tmp_path, "image,label", *rows), photos)
    assert told(listing) == {"0.jpg": "a", "6.JPG": "b"}
    assert listing.reading.endswith(f"stands for {photos}")


def test_paths_of_another_class_or_split_are_no_longer_ends(tmp_path: Path) -> None:
    folder = image_folder(tmp_path / "cars_test", {"BMW": 2})
    table = table_of(tmp_path, "image,label", "/x/Audi/00.jpg,a", "/x/Audi/01.jpg,b")
    with pytest.raises(DataError, match=r"no image of .* a file there is 'BMW/00.jpg'\)"):
        list_source(table, folder)
    table = table_of(tmp_path, "image,label", "/x/train/00.jpg,a", "/x/train/01.jpg,b")
    with pytest.raises(DataError, match="no image of"):
        list_source(table, image_folder(tmp_path / "test", {".": 2}))


def test_paths_of_this_machine_are_not_another_machines(photos: Path, tmp_path: Path) -> None:
    own = image_folder(tmp_path / "own", {"x": 2})
    save(photos.parent / "twins" / "00.jpg", picture(50, *SMALL))
    save(photos.parent / "twins" / "01.jpg", picture(51, *SMALL))
    rows = (f"{own}/x/00.jpg,a", f"{own}/x/01.jpg,b")
    with pytest.raises(DataError, match="no image of"):
        list_source(table_of(tmp_path, "image,label", *rows), photos.parent / "twins")


def test_absolute_paths_that_are_there_name_their_own_folder(photos: Path, tmp_path: Path) -> None:
    own = image_folder(tmp_path / "elsewhere" / "own", {"x": 1, "y": 1})
    rows = (f"{own}/x/00.jpg,a", f"{own}/y/00.jpg,b", f"{own}/y/99.jpg,b")
    (tmp_path / "lists").mkdir()
    table = table_of(tmp_path / "lists", "image,label", *rows)
    listing = list_source(table)
    assert {one.image_id for one in listing.source_images} == {"x/00.jpg", "y/00.jpg", rows[2][:-2]}
    assert listing.images_folder == own
    with pytest.raises(DataError, match="no image of"):
        list_source(table, photos)  # what a person says goes first


def test_endings_differ_by_case_alone_where_there_is_no_choice(tmp_path: Path) -> None:
    for number, name in enumerate(("a.jpg", "b.jpg", "c.jpg")):
        save(tmp_path / name, picture(number, *SMALL))
    (tmp_path / "b.jpg").rename(tmp_path / "a.JPG")
    table = table_of(tmp_path, "image,label", "a.JPG,x", "a.jpg,y", "c.JPG,z")
    assert told(list_source(table)) == {"a.JPG": "x", "a.jpg": "y", "c.jpg": "z"}


def test_separators_that_are_equally_likely_are_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path, "path;make, model", "a.jpg;Audi, A4")
    with pytest.raises(DataError, match="separated by commas or by semicolons: quote the cells"):
        read_table(table)
    table = table_of(tmp_path, "path;make, model", "a.jpg;Audi", "b.jpg;BMW")
    assert read_table(table).columns == ("path", "make, model")
    table = table_of(tmp_path, "image, label", '"a, b.jpg", "x"')
    assert read_table(table).rows == (("a, b.jpg", "x"),)
    table = table_of(tmp_path, "image|label", "a.jpg|x;y")
    assert read_table(table).rows == (("a.jpg", "x;y"),)


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path, "image,label,label", "a.jpg,x,y")
    with pytest.raises(DataError, match="several columns 'label': name them apart"):
        read_table(table)


def test_all_that_is_wrong_is_said_at_once(photos: Path, tmp_path: Path) -> None:
    table = table_of(tmp_path, "photo,kind", "0,a", "1,b")
    (tmp_path / "m.csv").write_text("x,nobody\ny,noone\n")
    with pytest.raises(DataError) as caught:
        prepare(table, tmp_path / "out", images=photos, val_size=2, near_duplicates="maybe")
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 things are wrong:"
    starts = ("--val-size 2 must", "--near-duplicates 'maybe'", "no column of", "no column of")
    assert all(line.startswith(f"- {start}") for line, start in zip(lines[1:], starts, strict=True))
    folder = image_folder(tmp_path / "cars", {"a": 1, "b": 1})
    with pytest.raises(DataError, match=r"merges 'nobody'.*\n- .*merges 'noone'"):
        prepare(folder, tmp_path / "out", merge=tmp_path / "m.csv")


def test_what_was_taken_is_kept_with_the_data(photos: Path, tmp_path: Path) -> None:
    rows = (f"{number}.jpg;{number % 2}" for number in range(6))
    made = prepare(table_of(tmp_path, "image;label", *rows), tmp_path / "out", images=photos)
    assert made.settings.reading == "image from image, label from label; separated by semicolons"


def test_lines_separated_by_blanks_are_refused(tmp_path: Path) -> None:
    table = table_of(tmp_path, "img/0.jpg 0", "img/1.jpg 1")
    with pytest.raises(DataError, match=r"separated by blanks \('img/0.jpg 0'\): put commas"):
        read_table(table)
    assert read_table(table_of(tmp_path, "Audi A4.jpg", "my car.jpg")).columns == ("column 1",)


def test_the_separator_that_excel_writes_down_is_taken(tmp_path: Path) -> None:
    table = read_table(table_of(tmp_path, "sep=;", "image;label, old", "a.jpg;x, y"))
    assert (table.columns, table.separator) == (("image", "label, old"), ";")


def test_names_of_several_files_and_folders_of_splits_are_told(tmp_path: Path) -> None:
    for split in ("train", "test"):
        image_folder(tmp_path, {split: 2}, first_seed=len(split))
    table = table_of(tmp_path, "image,label", "00.jpg,a", "01.jpg,b")
    with pytest.raises(DataError, match=r"2 names .* may be several images .* is '00.jpg': write"):
        list_source(table)
    table = table_of(tmp_path, "image,label", "train/00.jpg,a", "test/01.jpg,b")
    [note] = list_source(table).notes
    assert note.startswith("images lie in test and train, but no column of t.csv tells splits")


def test_a_table_beside_the_only_folder_is_named(tmp_path: Path) -> None:
    image_folder(tmp_path, {"images": 2})
    table_of(tmp_path, "image,label", "00.jpg,a", "01.jpg,b")
    with pytest.raises(DataError, match=r"give the table, as .*t\.csv --images .*images"):
        list_source(tmp_path)
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="no folder and no CSV: save the table as CSV"):
        list_source(tmp_path / "t.xlsx")


def test_a_split_whose_rows_have_no_label_is_told(photos: Path, tmp_path: Path) -> None:
    rows = ("0.jpg,a,train", "1.jpg,b,train", "2.jpg,,test", "3.jpg,,test")
    listing = list_source(table_of(tmp_path, "image,label,split", *rows), photos)
    assert listing.notes == ("test has no label on its 2 rows: it is cut from the others",)


def test_a_table_of_a_header_alone_says_so(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has a header \(image, label\) and no row below it"):
        list_source(table_of(tmp_path, "image,label"), photos)


def test_boxes_that_are_none_are_told_apart_from_no_box(photos: Path, tmp_path: Path) -> None:
    rows = ("0.jpg,a,1,1,9,9", "1.jpg,b,9,9,1,1", "2.jpg,a,,,,", "3.jpg,b,x,1,2,3")
    listing = list_source(table_of(tmp_path, "image,label,xmin,ymin,xmax,ymax", *rows), photos)
    assert [one.box for one in listing.source_images] == [(1, 1, 9, 9), None, None, None]
    (note,) = listing.notes
    assert note.startswith("2 boxes are none and passed by, as 1.jpg's (9, 9, 1, 1): pixels")


def test_names_of_a_system_without_case_are_found_where_one_file_bears_them(
    tmp_path: Path,
) -> None:
    for number, name in enumerate(("Bild 0.JPG", "Bild 1.JPG", "X.jpg", "x.jpg")):
        save(tmp_path / "img" / name, picture(number, *SMALL))
    ways = [rf"C:\Users\J\img\{name}" for name in ("bild 0.jpg", "BILD 1.jpg", "x.JPG")]
    table = table_of(tmp_path, "Datei;label", *(f"{way};{way[-5]}" for way in ways))
    listing = list_source(table, tmp_path / "img")
    assert sorted(told(listing)) == ["Bild 0.JPG", "Bild 1.JPG", "x.jpg"], "the very name is first"
    unsure = table_of(tmp_path, "image,label", "bild 0.jpg,a", "X.JPg,b", "bild 1.jpg,a")
    (tmp_path / "img" / "X.jpg").rename(tmp_path / "img" / "x.JPG")
    assert sorted(told(list_source(unsure, tmp_path / "img"))) == ["Bild 0.JPG", "Bild 1.JPG"]
