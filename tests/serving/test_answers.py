"""What a server says beside the classes: levels, sets, nearest training images, where it looked."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from carray.errors import RecordError
from carray.inference.card import Card
from carray.inference.level_answers import SURE
from carray.inference.neighbours import FILE, Neighbours
from carray.inference.predictor import load_model
from carray.runs_folder import RunsFolder
from carray.serving.app import build_app
from carray.serving.gauges import Gauges
from carray.serving.limits import Limits
from carray.serving.served import ServedModel
from tests.serving.calibrated import package
from tests.trained import Trained

__all__ = ["package"]


@pytest.fixture(scope="module")
def client(package: Path) -> Iterator[TestClient]:
    with served(package.parents[1], "toy") as client:
        yield client


def served(runs: Path, name: str, label_parts: str = "auto") -> TestClient:
    gauges = Gauges()
    model = ServedModel(RunsFolder(runs), name, Limits(), "cpu", gauges.batched, label_parts)
    return TestClient(build_app({name: model}, gauges, Limits()), base_url="http://localhost")


def ask(client: TestClient, data: bytes, query: str = "") -> dict[str, Any]:
    answer = client.post(f"/v1/predict{query}", files=[("images", ("a.png", data))])
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["images"][0]
    return found


def named_cars(package: Path, runs: Path, sign: str = " ") -> Path:
    """Write the package as `cars`, its classes named by make, model and year."""
    folder = runs / "models" / "cars"
    shutil.copytree(package, folder)
    card = Card.read(folder / "card.json")
    makes = ["Audi" if n < 4 else "BMW" for n in range(len(card.classes))]
    names = [sign.join([make, f"{n // 2}", f"{2000 + n}"]) for n, make in enumerate(makes)]
    card.model_copy(update={"classes": tuple(names)}).write(folder / "card.json")
    return runs


def picture_of(url: str) -> Image.Image:
    head, _, text = url.partition(",")
    assert head == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_a_training_image_is_nearest_to_itself(client: TestClient, trained: Trained) -> None:
    rows = trained.manifest.rows("train")[:3]
    for row in rows.tolist():
        entry = trained.manifest.included.iloc[row]
        said = ask(client, Path(entry["path"]).read_bytes(), "?neighbours=4")
        first, *others = said["neighbours"]
        assert (first["name"], len(others)) == (entry["label"], 3)
        assert first["similarity"] == pytest.approx(1.0, abs=2e-3)
        assert first["similarity"] >= max(each["similarity"] for each in others)
        assert picture_of(first["picture"]).size == (128, 128)


def test_the_heat_is_the_photograph_coloured_and_comes_only_when_asked_for(
    client: TestClient, trained: Trained
) -> None:
    data = Path(trained.manifest.included["path"][0]).read_bytes()
    plain, asked = ask(client, data), ask(client, data, "?heat=1")
    assert (plain["heat"], plain["neighbours"]) == (None, None)
    assert plain["classes"] == asked["classes"]
    with picture_of(asked["heat"]["picture"]) as picture:
        assert picture.size == (448, 448)
        assert np.asarray(picture).std(axis=2).max() > 20  # it has colours
    assert asked["heat"]["squashed"] is True


def test_levels_add_up_and_the_answer_is_no_deeper_than_is_sure(
    package: Path, trained: Trained, tmp_path: Path
) -> None:
    data = Path(trained.manifest.included["path"][0]).read_bytes()
    with served(named_cars(package, tmp_path), "cars") as client:
        said, (model,) = ask(client, data, "?top=20"), client.get("/v1/models").json()
    p = {guess["name"]: guess["probability"] for guess in said["classes"]}
    assert sum(p.values()) == pytest.approx(1, abs=1e-4)
    assert [each["level"] for each in said["levels"]] == ["make", "model", "year"]
    for level in said["levels"]:
        own = sum(value for name, value in p.items() if name.startswith(level["name"]))
        assert level["probability"] == pytest.approx(own, abs=1e-4)
    sure = [each for each in said["levels"] if each["probability"] >= SURE]
    assert said["sure_of"].startswith(sure[-1]["name"] if sure else "unsure")
    assert said["answer"] is None
    assert (model["knows_unknown"], model["has_neighbours"]) == (True, True)
    assert isinstance(said["unknown"], bool)


def test_an_answer_at_a_level_is_the_one_asked_for(
    package: Path, trained: Trained, tmp_path: Path
) -> None:
    data = Path(trained.manifest.included["path"][0]).read_bytes()
    with served(named_cars(package, tmp_path), "cars") as client:
        for place, level in enumerate(("make", "model", "year")):
            said = ask(client, data, f"?level={level}")
            assert said["answer"] == said["levels"][place]
        deepest = ask(client, data, "?level=auto&threshold=0")["answer"]
        assert (deepest["level"], deepest["name"]) == ("year", said["classes"][0]["name"])
        none = ask(client, data, "?level=auto&threshold=1")["answer"]
        assert (none["level"], none["name"]) == ("", "unsure")
        assert ask(client, data, "?level=auto")["answer"]["name"] == said["sure_of"]
        wrong = client.post("/v1/predict?level=body", content=b"never looked at")
        assert (wrong.status_code, wrong.json()["detail"]) == (
            422,
            "level=body isn't told by the class names of 'cars': ask for auto or make, model, year",
        )
        assert client.post("/v1/predict?level=years", content=b"").status_code == 422
        described = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]
        assert {"level", "threshold"} <= {each["name"] for each in described["parameters"]}


def test_a_pattern_of_the_user_s_reads_names_that_nobody_knows(
    package: Path, trained: Trained, tmp_path: Path
) -> None:
    data = Path(trained.manifest.included["path"][0]).read_bytes()
    runs = named_cars(package, tmp_path, "#")
    with served(runs, "cars") as client:
        (model,) = client.get("/v1/models").json()
        refused = client.post("/v1/predict?level=auto", content=data)
    assert (model["levels"], refused.status_code) == ([], 422)
    assert refused.json()["detail"].endswith(
        "of 'cars': leave it out, or have it served with --label-parts"
    )
    with served(runs, "cars", "{make}#{model}#{year}") as client:
        assert ask(client, data, "?level=make")["answer"]["name"] in ("Audi", "BMW")


def test_probabilities_are_at_the_temperature_that_calibrate_fitted(
    client: TestClient, package: Path, trained: Trained
) -> None:
    calibrated = load_model(package, "cpu")
    plain = replace(calibrated, card=calibrated.card.model_copy(update={"temperature": 1.0}))
    temperature = calibrated.card.temperature
    assert temperature != 1
    row = trained.manifest.rows("test")[0]
    path = Path(trained.manifest.included["path"][int(row)])
    sharpened = plain.predict(path)[0] ** (1 / temperature)
    (guess,) = ask(client, path.read_bytes(), "?top=1")["classes"]
    assert guess["probability"] == pytest.approx(sharpened.max() / sharpened.sum(), abs=1e-4)
    assert client.get("/v1/models").json()[0]["is_calibrated"]


def test_pictures_that_are_broken_are_refused(package: Path, tmp_path: Path) -> None:
    assert Neighbours.of_package(tmp_path) is None
    (tmp_path / FILE).write_bytes((package / FILE).read_bytes()[:-500])
    with pytest.raises(RecordError, match="move it away"):
        Neighbours.of_package(tmp_path)
