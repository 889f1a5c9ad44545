"""Boxes of the manifest, where they lie in the squares that trials read, and crops with them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from carray.config import AugmentConfig, Fit, build_config
from carray.data.manifest import Manifest
from carray.data.pixels.known_boxes import boxes_note, square_boxes
from carray.data.pixels.loader import TrainPlan
from carray.data.pixels.store import open_store
from carray.data.preparation.prepare import prepare
from carray.training.dataset import open_data

BOX = 20, 30, 60, 50


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey photographs of 100 x 60 pixels with a white box; every fifth one's isn't known."""
    folder = tmp_path_factory.mktemp("boxes")
    rng, lines = np.random.default_rng(0), ["path,label,x1,y1,x2,y2"]
    for number in range(40):
        noise = rng.integers(0, 100, (6, 10), np.uint8)  # no two are near-duplicates
        image = cv2.resize(noise, (100, 60), interpolation=cv2.INTER_NEAREST)
        image[30:50, 20:60] = 255
        cv2.imwrite(str(folder / f"{number}.png"), image)
        box = ",,," if number % 5 == 0 else ",".join(map(str, BOX))
        lines.append(f"{number}.png,{'ab'[number % 2]},{box}")
    (folder / "images.csv").write_text("\n".join(lines) + "\n")
    return folder / "images.csv"


@pytest.fixture(scope="module")
def manifest(table: Path) -> Manifest:
    return prepare(table, table.parent / "data", val_size=0.2)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_box_lies_where_the_square_has_it(manifest: Manifest, fit: Fit) -> None:
    boxes = square_boxes(manifest, fit)
    assert boxes is not None
    known = np.isfinite(boxes[:, 0])
    assert known.sum() == pytest.approx(0.8 * len(boxes), abs=1)
    pixels = open_store(manifest, 56, fit).pixels
    for image, (x1, y1, x2, y2) in zip(pixels[known], boxes[known] * 64, strict=True):
        rows, columns = np.nonzero(image[..., 0] > 180)
        ends = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert np.abs(np.array([x1, y1, x2, y2]) - ends).max() <= 1.5


def test_crops_of_a_trial_keep_it(manifest: Manifest) -> None:
    asked = {"image_size": 56, "augment.crop_min_area": 0.3, "augment.strength": 0.0}
    shares = []
    for keeps in (False, True):
        config = build_config({**asked, "augment.crop_keeps_box": keeps})
        data = open_data(str(manifest.folder), config)
        assert data.images.boxes is not None
        rows = data.train[np.isfinite(data.images.boxes[data.train, 0])]
        seeds = 1, 1, 0
        plan = TrainPlan(data.images, rows, len(rows), 56, config.augment, seeds, False, False)
        white = (plan.make(0).images[..., 0] > 180).float().mean((1, 2))
        shares.append(float(white.min()))
    assert shares[0] < 0.1 < shares[1]  # of the whole image the box is 0.133


def test_data_without_boxes_or_cut_to_them_are_told(
    manifest: Manifest, table: Path, toy_manifest: Manifest
) -> None:
    keeps, not_asked = AugmentConfig(crop_keeps_box=True), AugmentConfig()
    assert boxes_note(keeps, manifest) == boxes_note(not_asked, toy_manifest) == ""
    assert boxes_note(keeps, toy_manifest).endswith("on data: its images have no boxes")
    cut = prepare(table, table.parent / "cut", val_size=0.2, crop="box")
    assert boxes_note(keeps, cut).endswith("on cut: its images are cut to their boxes already")
    assert square_boxes(cut, "squash") is None
