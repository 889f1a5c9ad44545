"""The toy cars are what `flaws.csv` says, and harder than their pixels."""

import csv
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from carray.data.manifest import Manifest
from carray.data.pixels.store import open_store
from carray.data.preparation.prepare import prepare
from carray.data.synthetic import FLAWS_FILE, MODELS, TWINS, draw_car, render_toycars
from carray.data.synthetic.car_models import BODIES
from carray.data.synthetic.draw import badge_place
from carray.errors import DataError

IMAGES_PER_CLASS = 24


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_toycars(tmp_path_factory.mktemp("toy") / "cars", images_per_class=24, seed=4)


@pytest.fixture(scope="module")
def manifest(toys: Path) -> Manifest:
    return prepare(toys, toys.parent / "data")


def flaws(folder: Path) -> list[dict[str, str]]:
    with (folder / FLAWS_FILE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_there_are_twelve_models_of_four_brands_and_three_pairs_of_twins() -> None:
    assert len({model.label for model in MODELS}) == 12
    assert len({model.brand for model in MODELS}) == 4
    assert len(TWINS) == 3
    for one, other in TWINS:
        assert one.split()[0] != other.split()[0], "their badges differ"


def test_every_model_has_its_images_within_the_promised_sizes(toys: Path) -> None:
    broken = {flaw["image"] for flaw in flaws(toys) if flaw["flaw"] == "corrupt"}
    for model in MODELS:
        assert len(list((toys / model.label).iterdir())) >= IMAGES_PER_CLASS
    sizes, kinds = set(), Counter[str]()
    for path in toys.rglob("*.[jp][pn]g"):
        if path.relative_to(toys).as_posix() not in broken:
            with Image.open(path) as image:
                sizes |= set(image.size)
                kinds[str(image.format)] += 1
    assert min(sizes) >= 95, "a near-duplicate loses one pixel"
    assert max(sizes) <= 160
    assert kinds["JPEG"] > kinds["PNG"] > 0


def test_planted_flaws_are_listed_and_found(toys: Path, manifest: Manifest) -> None:
    listed = flaws(toys)
    assert set(Counter(flaw["flaw"] for flaw in listed)) == {
        "wrong_label",
        "near_duplicate",
        "conflict",
        "corrupt",
    }
    excluded = manifest.images.set_index("image_id")["excluded"]
    groups = manifest.images.set_index("image_id")["group"]
    for flaw in listed:
        if flaw["flaw"] == "corrupt":
            assert excluded[flaw["image"]].startswith("unreadable")
        elif flaw["flaw"] == "conflict":
            assert excluded[flaw["image"]].startswith("conflict")
            assert excluded[flaw["truth"]].startswith("conflict")
        elif flaw["flaw"] == "near_duplicate":
            assert groups[flaw["image"]] == groups[flaw["truth"]]
        else:
            assert excluded[flaw["image"]] == ""
            assert flaw["truth"] in manifest.classes
            assert not flaw["image"].startswith(flaw["truth"])
    planted = sum(flaw["flaw"] == "near_duplicate" for flaw in listed)
    assert (manifest.included["group"].value_counts() > 1).sum() == planted, "and no others"


def test_a_seed_draws_the_same_images_again_and_another_differs(tmp_path: Path) -> None:
    folders = [
        render_toycars(tmp_path / name, images_per_class=4, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in folders
    ]
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_a_folder_in_use_and_too_few_images_are_refused(toys: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is there already"):
        render_toycars(toys)
    with pytest.raises(DataError, match="too few"):
        render_toycars(tmp_path / "few", images_per_class=3)


def test_twins_differ_in_nothing_but_the_badge() -> None:
    by_label = {model.label: model for model in MODELS}
    for one, other in TWINS:
        first, second = (
            draw_car(by_label[label], np.random.default_rng(7)).astype(int)
            for label in (one, other)
        )
        changed = np.abs(first - second).max(axis=2) > 12
        assert 10 < changed.sum() < 0.03 * changed.size
        rows, columns = np.nonzero(changed)
        assert np.ptp(rows) < 0.2 * changed.shape[0], "in one small place"
        assert np.ptp(columns) < 0.2 * changed.shape[1]


def test_a_badge_is_on_its_car() -> None:
    for body in BODIES.values():
        outline = np.array(body.outline, np.float32)
        assert cv2.pointPolygonTest(outline, badge_place(body), True) > 0.03


def test_a_linear_model_on_pixels_fails(manifest: Manifest) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    store = open_store(manifest, 28, "squash")
    pixels = store.pixels.reshape(len(store.pixels), -1) / 255.0  # 32 x 32
    train = manifest.rows("train")
    held = np.concatenate([manifest.rows("val"), manifest.rows("test")])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-2, max_iter=300))
    model.fit(pixels[train], manifest.labels[train])
    assert model.score(pixels[train], manifest.labels[train]) > 0.9, "it learns train by heart"
    assert model.score(pixels[held], manifest.labels[held]) < 0.4
