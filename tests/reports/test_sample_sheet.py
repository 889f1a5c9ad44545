"""The sample sheet: every class is on it, its bar is its counts, and a lost file is a grey tile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageColor
from typer.testing import CliRunner

from carray import drawing
from carray.data.manifest import Manifest
from carray.data.preparation.prepare import prepare
from carray.drawing import Fonts, fitted
from carray.errors import DataError
from carray.reports.pictures import sample_sheet as room
from carray.reports.pictures.sample_sheet import sample_sheet
from tests.data.pictures import image_folder


def pixels_of(file: Path) -> npt.NDArray[np.int64]:
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB")).astype(np.int64)


def is_colour(pixels: npt.NDArray[np.int64], colour: str) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = (pixels == np.array(ImageColor.getrgb(colour))).all(axis=-1)
    return same


def test_every_class_has_its_images_and_a_bar_of_its_splits(
    toy_manifest: Manifest, tmp_path: Path
) -> None:
    file = sample_sheet(toy_manifest, tmp_path / "sheet.png")
    pixels = pixels_of(file)
    counts = toy_manifest.class_counts().astype(float)
    most = int(counts.sum(axis=1).max())
    _, _, images, high = room.SHAPES[0]
    wide = round(room.ASPECT * high)
    step = room.NAME + room.BAR + 3 * room.GAP + high + 6
    full = images * (wide + room.GAP) - room.GAP
    for place, name in enumerate(toy_manifest.classes):
        top = room.HEAD + place * step
        line = pixels[top + room.NAME + 2]
        blue = is_colour(line, room.SPLIT_COLOURS["train"]).sum()
        assert blue == pytest.approx(full * float(counts["train"][name]) / most, abs=2)
        drawn = pixels[top + room.NAME + room.BAR + room.GAP :][:high, room.MARGIN :][:, :full]
        assert drawn.std() > 20, name


def test_a_lost_file_is_a_grey_tile_and_many_classes_share_columns(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "src", {f"class {number:02d}": 8 for number in range(14)})
    manifest = prepare(source, tmp_path / "data")
    before = pixels_of(sample_sheet(manifest, tmp_path / "a.png"))
    for file in (source / "class 00").iterdir():
        file.unlink()
    after = pixels_of(sample_sheet(manifest, tmp_path / "b.png"))
    assert is_colour(after, room.EMPTY).sum() > is_colour(before, room.EMPTY).sum() + 5000
    assert before.shape[1] > before.shape[0], "two columns"


def test_only_png_files_are_written(toy_manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be a \.png file"):
        sample_sheet(toy_manifest, tmp_path / "sheet.jpg")
    assert not list(tmp_path.iterdir())


def test_the_command_says_where_the_sheet_is(toy_data: Path, tmp_path: Path) -> None:
    from carray.cli.app import app

    file = tmp_path / "sheet.png"
    done = CliRunner().invoke(app, ["data", "show", str(toy_data), "--sheet", str(file)])
    assert done.exit_code == 0, done.output
    assert f"sample sheet: {file}" in done.stdout
    assert file.stat().st_size > 10_000


def test_letters_with_marks_are_no_boxes_on_a_machine_without_fonts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drawing, "FONT_FOLDERS", ())
    font = Fonts("Škoda Élan").normal
    letters = {name: bytes(font.getmask(name)) for name in ("Š", "É", "é", "Ж", "\uffff")}
    assert len(set(letters.values())) == len(letters), "none is drawn as a letter that isn't there"


def test_a_name_too_wide_is_cut() -> None:
    from PIL import ImageDraw

    pen = ImageDraw.Draw(Image.new("RGB", (10, 10)))
    font = Fonts("abc").normal
    short = fitted(pen, "a very long name of a car", 80, font)
    assert short.endswith("…")
    assert pen.textlength(short, font) <= 80
    assert fitted(pen, "car", 80, font) == "car"
