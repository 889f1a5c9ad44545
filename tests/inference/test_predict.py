"""Predictions as CSV: what can be read is predicted, what can't is named."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from carray.cli.app import app
from carray.ensemble import build_ensemble
from carray.errors import ConfigError, DataError, RecordError
from carray.inference.card import Card
from carray.inference.predict import predict_to_csv
from carray.inference.predictor import load_model
from tests.inference.packages import draw_images, make_real_study


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    make_real_study(root)
    build_ensemble(runs=root, track=False, name="final")
    return root


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_is_predicted_likeliest_class_first(runs: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "images")
    done = predict_to_csv("final", [tmp_path / "images"], tmp_path / "out.csv", runs=runs)
    rows = rows_of(tmp_path / "out.csv")
    assert [row["image"] for row in rows] == [f"차 {number}.png" for number in range(5)]
    for row in rows:
        first, second, third = (float(row[f"probability_{rank}"]) for rank in (1, 2, 3))
        assert 1 >= first >= second >= third > 0
        assert row["class_1"].startswith("class ")
    assert done.images == 5


def test_unreadable_images_are_named_and_the_rest_is_predicted(runs: Path, tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images")
    images[2].write_bytes(b"no image")
    wanted = [*images, tmp_path / "images" / "gone.jpg"]
    listing = tmp_path / "list.csv"
    listing.write_text("path\n" + "\n".join(str(path) for path in wanted), encoding="utf-8")
    done = predict_to_csv("final", [listing], tmp_path / "out.csv", runs=runs)
    assert done.images == 4
    assert set(done.unreadable) == {str(images[2]), str(tmp_path / "images" / "gone.jpg")}
    rows = rows_of(tmp_path / "out.csv")
    assert rows[2]["class_1"] == ""
    assert "no image" in rows[2]["error"]


def test_nothing_is_written_where_no_image_can_be_read(runs: Path, tmp_path: Path) -> None:
    for image in draw_images(tmp_path / "images"):
        image.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"of 5 images none can be read; 차 0\.png: .*no image"):
        predict_to_csv("final", [tmp_path / "images"], tmp_path / "out.csv", runs=runs)
    assert not (tmp_path / "out.csv").exists()


def test_a_target_that_is_a_folder_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder, and a file is to be written"):
        predict_to_csv("no such model", [tmp_path], tmp_path, runs=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file is no folder that you may write to"):
        predict_to_csv("no such model", [tmp_path], tmp_path / "file" / "out.csv", runs=tmp_path)


def test_a_submission_has_the_samples_columns_ids_and_order(runs: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "images")
    sample = tmp_path / "sample.csv"
    sample.write_text("Id,Category\n차 3,0\n차 0,0\n차 3,0\n", encoding="utf-8")
    out = tmp_path / "submission.csv"
    predict_to_csv("final", [tmp_path / "images"], out, sample=sample, runs=runs)
    rows = rows_of(out)
    assert list(rows[0]) == ["Id", "Category"]
    assert [row["Id"] for row in rows] == ["차 3", "차 0", "차 3"]
    assert rows[0]["Category"] == rows[2]["Category"]


def test_ids_without_an_image_are_told(runs: Path, tmp_path: Path) -> None:
    draw_images(tmp_path / "images")
    sample = tmp_path / "sample.csv"
    sample.write_text("Id,Category\n차 0,0\nlost,0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"1 of 2 ids .* the first is 'lost'"):
        predict_to_csv("final", [tmp_path / "images"], "out.csv", sample=sample, runs=runs)


def test_boxes_are_cut_where_the_model_was_trained_so_and_missing_ones_are_told(
    runs: Path, tmp_path: Path
) -> None:
    images = draw_images(tmp_path / "images", 2)
    package = shutil.copytree(runs / "models" / "final", tmp_path / "boxed")
    card = Card.read(package / "card.json").model_copy(update={"crop": "box"})
    card.write(package / "card.json")
    listing = tmp_path / "list.csv"
    listing.write_text(
        f"path,box_x1,box_y1,box_x2,box_y2\n{images[0]},10,10,50,50\n{images[1]},,,,\n",
        encoding="utf-8",
    )
    cut = tmp_path / "cut.png"
    with Image.open(images[0]) as image:
        image.crop((10, 10, 50, 50)).save(cut)
    done = predict_to_csv(str(package), [listing], tmp_path / "out.csv", runs=runs)
    by_hand = predict_to_csv("final", [cut], tmp_path / "cut.csv", runs=runs)
    assert "1 image here has none" in done.notes[0]
    assert done.rows[0]["probability_1"] == by_hand.rows[0]["probability_1"]


def test_a_photograph_has_one_answer_by_path_and_as_pil_opens_it(
    runs: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (500, 700, 3), np.uint8)
    file = tmp_path / "large.jpg"
    Image.fromarray(noise).save(file)
    model = load_model("final", runs=runs)
    with Image.open(file) as opened, Image.open(file) as decoded:
        decoded.load()
        pixels = np.asarray(decoded)
        by_path, by_pil, by_pixels = map(model.predict, (file, opened, [decoded, pixels]))
    assert np.array_equal(by_path, by_pil)
    assert np.array_equal(by_pixels[0], by_pixels[1])
    assert not np.array_equal(by_path[0], by_pixels[0]), "what it guards against"


def test_a_single_trial_is_packaged_on_the_fly(runs: Path, tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images")
    done = predict_to_csv("autumn/0001", images, tmp_path / "out.csv", runs=runs, top_k=99)
    assert done.model == runs / "models" / "autumn-0001"
    row = rows_of(tmp_path / "out.csv")[0]
    assert sum(float(row[f"probability_{rank}"]) for rank in range(1, 7)) == pytest.approx(
        1, abs=1e-4
    )


def test_a_package_works_from_wherever_it_was_copied(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "models" / "final", tmp_path / "elsewhere")
    images = draw_images(tmp_path / "images")
    here = predict_to_csv(str(tmp_path / "elsewhere"), images, tmp_path / "a.csv", runs=tmp_path)
    there = predict_to_csv("final", images, tmp_path / "b.csv", runs=runs)
    assert here.rows == there.rows


def test_wrong_models_and_images_are_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="did you mean 'final'"):
        predict_to_csv("finale", [tmp_path], tmp_path / "out.csv", runs=runs)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image in"):
        predict_to_csv("final", [tmp_path / "empty"], tmp_path / "out.csv", runs=runs)
    assert not (tmp_path / "out.csv").exists()


def test_the_command_line_prints_what_it_wrote(runs: Path, tmp_path: Path) -> None:
    images = draw_images(tmp_path / "images")
    images[0].write_bytes(b"")
    out = tmp_path / "out.csv"
    call = ["predict", "final", str(tmp_path / "images"), "--out", str(out), "--runs", str(runs)]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    assert "4 images" in done.output
    rows = [line.split() for line in done.output.splitlines() if line.startswith("  차")]
    assert all(re.fullmatch(r"0\.\d{3}|1\.000|…", row[-1]) for row in rows if len(row) > 2), rows
    assert "unreadable: 차 0.png (the file is empty)" in done.output
    assert max(map(len, done.output.splitlines())) <= 100 + len(str(out))
