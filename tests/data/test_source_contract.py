"""What every reader of a source keeps: the same images give the same listing, however they lie."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from carray.data.preparation.sources import Listing, list_source
from tests.data.preparation.test_sources import devkit

CLASSES = ("Lumen 2", "Lumen 10", "현대 소나타")
Reader = Callable[[Listing, Path], Path]


def as_devkit(images: Listing, folder: Path) -> Path:
    return devkit(folder, classes=CLASSES)


def as_split_folder(images: Listing, folder: Path) -> Path:
    for one in images.source_images:
        place = folder / one.split / one.label / one.path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one.path, place)
    return folder


def as_table(images: Listing, folder: Path) -> Path:
    return _table(images, folder, ",", [one.image_id for one in images.source_images])


def as_table_without_endings(images: Listing, folder: Path) -> Path:
    ids = [one.image_id.removesuffix(".jpg") for one in images.source_images]
    return _table(images, folder, ";", ids)


def _table(images: Listing, folder: Path, mark: str, ids: list[str]) -> Path:
    rows = [mark.join(("id", "label", "split"))]
    for image_id, one in zip(ids, images.source_images, strict=True):
        place = folder / one.image_id
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one.path, place)
        rows.append(mark.join((image_id, one.label, one.split)))
    (folder / "cars.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "cars.csv"


READERS: list[Reader] = [as_devkit, as_split_folder, as_table, as_table_without_endings]
pytestmark = pytest.mark.parametrize("laid_out", READERS, ids=lambda reader: reader.__name__)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Listing:
    """Nine images of three classes, six to train on and three to test on."""
    return list_source(devkit(tmp_path_factory.mktemp("cars"), classes=CLASSES))


def told(listing: Listing) -> dict[tuple[str, str], str]:
    """Return {(split, file's name): label}."""
    return {(one.split, one.path.name): one.label for one in listing.source_images}


def test_every_image_has_its_class_and_split(
    images: Listing, laid_out: Reader, tmp_path: Path
) -> None:
    assert len(told(images)) == 9
    assert told(list_source(laid_out(images, tmp_path))) == told(images)


def test_every_image_is_there_and_usable(images: Listing, laid_out: Reader, tmp_path: Path) -> None:
    listing = list_source(laid_out(images, tmp_path))
    assert {one.problem for one in listing.source_images} == {""}
    for one in listing.source_images:
        twin = next(
            each
            for each in images.source_images
            if (each.split, each.path.name) == (one.split, one.path.name)
        )
        assert one.path.read_bytes() == twin.path.read_bytes()
        assert one.path.is_relative_to(listing.images_folder)
    assert listing.notes == ()


def test_ids_are_unique_and_in_order(images: Listing, laid_out: Reader, tmp_path: Path) -> None:
    ids = [one.image_id for one in list_source(laid_out(images, tmp_path)).source_images]
    assert ids == sorted(set(ids))
    assert len(ids) == 9


def test_a_source_that_has_moved_has_the_same_ids(
    images: Listing, laid_out: Reader, tmp_path: Path
) -> None:
    first = laid_out(images, tmp_path / "here")
    listing = list_source(first)
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = list_source(tmp_path / "there" / first.relative_to(tmp_path / "here"))
    assert [(one.image_id, one.label, one.split, one.box) for one in moved.source_images] == [
        (one.image_id, one.label, one.split, one.box) for one in listing.source_images
    ]
    assert all(one.path.is_file() for one in moved.source_images)
