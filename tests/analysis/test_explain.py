"""Overlays: one for each image that can be read, a sheet of all, for trials and ensembles."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from carray.analysis.explain import explain, shares_outside
from carray.config import Fit
from carray.ensemble import build_ensemble
from carray.errors import ConfigError, DataError
from tests.inference.packages import draw_images, make_real_study


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    make_real_study(root)
    build_ensemble(runs=root, track=False, name="final")
    return root


def test_each_image_has_an_overlay_of_its_own_shape_and_colour(runs: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "images", count=4)
    done = explain("final", [tmp_path / "images"], tmp_path / "out", runs=runs)
    assert [row.name for row in done.rows] == [f"차 {number}.png" for number in range(4)]
    for number, row in enumerate(done.rows):
        assert row.said == row.explained
        assert 0 < row.probability <= 1
        with Image.open(row.overlay) as image:
            shape = (60 + 10 * number) / 120
            assert image.height / image.width == pytest.approx(shape, abs=0.02)
            assert image.mode == "RGB"
    with Image.open(done.sheet) as sheet:
        assert np.asarray(sheet.convert("RGB")).std() > 20
    assert "run" not in done.note, "a package has no run of its own"
    assert "feature map has 2x2 cells" in done.note


def test_the_probability_is_of_the_class_that_is_explained(runs: Path, tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images", count=1)
    (said,) = explain("final", images, tmp_path / "a", runs=runs).rows
    other = next(name for name in ("class 0", "class 1") if name != said.said)
    (row,) = explain("final", images, tmp_path / "b", of_class=other, runs=runs).rows
    assert row.probability < said.probability
    assert row.caption.startswith(f"{other} {row.probability:.3f} (said {said.said})")
    dull = replace(row, has_evidence=False)
    assert dull.caption.endswith("no positive evidence")


def test_another_class_has_another_map(runs: Path, tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images", count=2)[:1]
    maps = []
    for name in ("class 0", "class 1"):
        done = explain("final", images, tmp_path / name, of_class=name, runs=runs)
        assert done.rows[0].explained == name
        maps.append(np.asarray(Image.open(done.rows[0].overlay)).astype(int))
    assert np.abs(maps[0] - maps[1]).max() > 10


def test_what_is_background_is_told_where_a_table_has_boxes(runs: Path, tmp_path: Path) -> None:
    first, second, third = draw_images(tmp_path / "images", count=3)
    with Image.open(first) as image:
        wide, high = image.size
    table = tmp_path / "boxes.csv"
    rows = [f"{first},0,0,{wide},{high}", f"{second},0,0,{wide // 2},{high}", f"{third},,,,"]
    table.write_text("\n".join(["path,x1,y1,x2,y2", *rows]))
    done = explain("final", [table], tmp_path / "out", runs=runs)
    whole, half, none = done.rows
    assert (whole.evidence_outside, whole.area_outside) == (0, 0)
    assert half.evidence_outside is not None and 0 < half.evidence_outside < 1
    assert half.area_outside is not None and 0 < half.area_outside < 1
    assert none.evidence_outside is None and none.area_outside is None
    assert re.search(r"outside of the boxes of 2 images: 0\.\d\d of the evidence, on ", done.note)


@pytest.mark.parametrize(
    ("fit", "evidence", "area"), [("squash", 0.2, 0.75), ("crop", 0.0, 0.5), ("pad", 0.5, 0.875)]
)
def test_shares_outside_go_by_what_the_model_sees(fit: Fit, evidence: float, area: float) -> None:
    """A box of the middle half, over the upper half, of an image twice as wide as high."""
    heat = np.zeros((8, 8), np.float32)
    heat[3, 2:6] = 1  # within the box, whatever the fit
    heat[0, 0] = {"squash": 1, "crop": 0, "pad": 4}[fit]
    outside, share = shares_outside(heat, (50, 0, 150, 50), (200, 100), fit)
    assert (outside, share) == pytest.approx((evidence, area))


def test_unreadable_images_are_named_and_the_limit_holds(runs: Path, tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images", count=4)
    images[1].write_bytes(b"no image")
    done = explain("final", images, tmp_path / "out", limit=3, runs=runs)
    assert len(done.rows) == 2
    assert list(done.unreadable) == ["차 1.png"]
    assert sorted(f.name for f in done.folder.glob("0*.png")) == ["0001-차 0.png", "0003-차 2.png"]


def test_what_cannot_be_explained_is_refused_and_nothing_is_written(
    runs: Path, tmp_path: Path
) -> None:
    images = draw_images(tmp_path / "images", count=1)
    with pytest.raises(ConfigError, match=r"no class 'clas 1'; did you mean 'class 1'"):
        explain("final", images, tmp_path / "out", of_class="clas 1", runs=runs)
    with pytest.raises(ConfigError, match="--limit 0"):
        explain("final", images, tmp_path / "out", limit=0, runs=runs)
    images[0].write_bytes(b"no image")
    with pytest.raises(DataError, match="no image can be read"):
        explain("final", images, tmp_path / "out", runs=runs)
    assert not (tmp_path / "out").exists()


def test_the_command_prints_each_image(runs: Path, tmp_path: Path) -> None:
    from carray.cli.app import app

    images = draw_images(tmp_path / "images", count=2)
    arguments = ["explain", "final", *map(str, images), "--runs", str(runs)]
    plain = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "a")])
    assert plain.exit_code == 0, plain.output
    assert "2 overlays in" in plain.stdout
    machine = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "b"), "--json"])
    assert len(json.loads(machine.stdout)["images"]) == 2
