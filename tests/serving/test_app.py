"""A server answers as the model does, and refuses strangers' files in one sentence."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import shutil
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from carray.errors import ConfigError
from carray.inference.package import write_package
from carray.inference.predictor import load_model
from carray.runs_folder import RunsFolder
from carray.serving import app
from carray.serving.app import PAGE, build_app
from carray.serving.gauges import Gauges
from carray.serving.limits import Limits, Refused
from carray.serving.served import ServedModel
from carray.serving.server import check_address, read_token, serve_models
from carray.serving.uploads import uploads_of
from tests.trained import Trained

TOKEN = "a-token-of-this-test"
LIMITS = Limits(image_bytes=50_000, request_bytes=200_000, images=3, pixels=10**6)


@pytest.fixture(scope="module")
def runs(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_package(folder / "models" / "toy", trained.study.record(), [trained.study.trial(0)])
    return folder


@pytest.fixture(scope="module")
def client(runs: Path) -> Iterator[TestClient]:
    gauges = Gauges()
    served = ServedModel(RunsFolder(runs), "toy", LIMITS, "cpu", gauges.batched)
    with TestClient(
        build_app({"toy": served}, gauges, LIMITS), base_url="http://localhost"
    ) as client:
        yield client


@pytest.fixture
def photograph(trained: Trained) -> Path:
    return Path(trained.manifest.included["path"][0])


def test_an_answer_is_the_model_s(client: TestClient, runs: Path, photograph: Path) -> None:
    data = photograph.read_bytes()
    model = load_model(runs / "models" / "toy", "cpu")
    p = model.predict(photograph)[0]
    form = client.post("/v1/predict?top=2", files=[("images", ("a.png", data))] * 2).json()
    assert (form["model"], form["version"], len(form["images"])) == ("toy", 1, 2)
    first = form["images"][0]
    assert first["image"] == "a.png"
    assert [guess["name"] for guess in first["classes"]] == [
        model.classes[place] for place in (-p).argsort()[:2]
    ]
    assert first["classes"][0]["probability"] == pytest.approx(p.max(), abs=1e-5)
    text = base64.b64encode(data).decode()
    encoded = client.post("/v1/predict?top=2", json={"images": [f"data:image/png;base64,{text}"]})
    raw = client.post("/v1/predict?top=2", content=data, headers={"content-type": "image/png"})
    assert encoded.json()["images"][0]["classes"] == raw.json()["images"][0]["classes"]
    counted = client.get("/metrics").text
    assert 'carray_requests_total{status="200"} 3.0' in counted


def claimed_png(side: int) -> bytes:
    """Return a small PNG that says it is `side` pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    body = chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def eps() -> bytes:
    kept = io.BytesIO()
    Image.new("RGB", (8, 8)).save(kept, "EPS")
    return kept.getvalue()


@pytest.mark.parametrize(
    ("data", "status", "why"),
    [
        (b"hello", 415, "it is no image that can be read: send a JPEG"),
        (b"", 422, "it is empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "it is no image that can be read"),
        (eps(), 415, "it is no image that can be read"),
        (claimed_png(30_000), 413, "it is 30000 x 30000 pixels, at most 1,000,000"),
        (claimed_png(100), 422, "send it again, or another"),
        (bytes(60_000), 413, "it is over 50,000 bytes"),
        (bytes(300_000), 413, "the request is over 200,000 bytes"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(
    client: TestClient, data: bytes, status: int, why: str
) -> None:
    answer = client.post("/v1/predict", files={"images": ("a.jpg", data)})
    assert (answer.status_code, why in answer.json()["detail"]) == (status, True), answer.text


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/a.png", "x/../../a.png", "..\\a.png", "a\x07.png"]
)
def test_a_name_that_leads_elsewhere_is_refused(photograph: Path, name: str) -> None:
    form = uploads_of(*_form(name, photograph.read_bytes()), LIMITS)
    with pytest.raises(Refused, match="its name leads elsewhere: send a file's name alone") as why:
        asyncio.run(form)
    assert why.value.status == 422


def test_a_plain_name_is_taken(photograph: Path) -> None:
    for name in ("기아 K5.png", "cars/a..b.png"):
        (upload,) = asyncio.run(uploads_of(*_form(name, photograph.read_bytes()), LIMITS))
        assert upload.name == name


def _form(name: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    told = name.replace("\\", "\\\\")  # as a quoted string of a header
    head = f'--x\r\nContent-Disposition: form-data; name="images"; filename="{told}"\r\n\r\n'
    body = head.encode() + data + b"\r\n--x--\r\n"
    return body, {"content-type": "multipart/form-data; boundary=x"}


def test_bad_requests_are_refused_in_a_sentence(client: TestClient) -> None:
    def said(status: int, path: str = "/v1/predict", **body: object) -> str:
        answer = client.post(path, **body)  # type: ignore[arg-type]
        assert answer.status_code == status, answer.text
        return str(answer.json()["detail"])

    assert "isn't base64" in said(422, json={"images": ["%"]})
    assert "`images` must be a list" in said(422, json=["x"])
    as_json = {"content-type": "application/json"}
    assert "the body is no JSON" in said(400, content="[", headers=as_json)
    assert "content type 'text/plain'" in said(415, headers={"content-type": "text/plain"})
    assert "Missing boundary" in said(400, headers={"content-type": "multipart/form-data"})
    assert "there is no image" in said(422, json={"images": []})
    assert "4 images are more than the 3" in said(413, files=[("images", b"x")] * 4)
    assert said(422, "/v1/predict?top=0").startswith("top='0': ")
    assert "ask toy" in said(404, "/v1/predict?model=other", files={"images": b"x"})
    assert client.get("/healthz", headers={"host": "elsewhere.example"}).status_code == 400
    assert "POST /nowhere is not answered here" in said(404, "/nowhere")
    wrong = client.get("/v1/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert "GET /v1/predict is not answered here" in wrong.json()["detail"]


def test_who_operates_it_may_ask_for_heads_alone(client: TestClient) -> None:
    for path in ("/", "/healthz", "/readyz", "/metrics"):
        assert client.head(path).status_code == 200
    assert "head" not in client.get("/openapi.json").text


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
def test_this_machine_is_called_by_each_of_its_names(client: TestClient, name: str) -> None:
    assert client.get("/healthz", headers={"host": name}).status_code == 200


def test_a_newer_version_takes_over(trained: Trained, tmp_path: Path, runs: Path) -> None:
    shutil.copytree(runs / "models", tmp_path / "models")
    served = ServedModel(RunsFolder(tmp_path), "toy", LIMITS, "cpu", lambda images, seconds: None)
    first = served.current
    assert not served.refresh()
    write_package(tmp_path / "models" / "toy@2", trained.study.record(), [trained.study.trial(1)])
    assert served.refresh()
    assert (first.number, served.current.number) == (1, 2)
    first.batcher.join(5)
    served.close()


def test_a_version_that_cannot_be_read_is_told_and_the_old_one_answers(
    runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(runs / "models", tmp_path / "models")
    monkeypatch.setattr(app, "WATCH_SECONDS", 0.01)
    gauges = Gauges()
    served = ServedModel(RunsFolder(tmp_path), "toy", LIMITS, "cpu", gauges.batched)
    with TestClient(build_app({"toy": served}, gauges, LIMITS), base_url="http://localhost") as one:
        (tmp_path / "models" / "toy@2").mkdir()
        (tmp_path / "models" / "toy@2" / "card.json").write_text("[")
        wait_until(lambda: "a newer toy isn't taken" in caplog.text)
        shutil.copytree(runs / "models" / "toy", tmp_path / "aside")  # it comes whole
        (tmp_path / "aside").rename(tmp_path / "models" / "toy@3")
        wait_until(lambda: one.get("/v1/models").json()[0]["version"] == 3)
    assert caplog.text.count("a newer toy isn't taken") == 1


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_who_has_no_token_is_not_answered(runs: Path) -> None:
    gauges = Gauges()
    served = ServedModel(RunsFolder(runs), "toy", LIMITS, "cpu", gauges.batched)
    with TestClient(build_app({"toy": served}, gauges, LIMITS, TOKEN, ["*"])) as client:
        for path in ("/v1/models", "/metrics"):
            assert client.get(path).status_code == 401
        wrong = client.post("/v1/predict", headers={"authorization": "Bearer wrong"})
        assert wrong.status_code == 401
        assert wrong.headers["www-authenticate"] == "Bearer"
        for unschemed in (TOKEN, f" {TOKEN}", f"Basic {TOKEN}", f"Bearer{TOKEN}", "Bearer", ""):
            refused = client.get("/v1/models", headers={"authorization": unschemed})
            assert refused.status_code == 401, unschemed
        for scheme in ("Bearer", "bearer", "BEARER", "Bearer "):  # RFC 9110, 11.1 and 11.4
            right = client.get("/v1/models", headers={"authorization": f"{scheme} {TOKEN}"})
            assert right.json()[0]["name"] == "toy"
        assert client.get("/readyz").status_code == client.get("/").status_code == 200


def test_a_client_that_asks_too_often_is_told_when_to_come_again(runs: Path) -> None:
    gauges, limits = Gauges(), Limits(rate_per_minute=2)
    served = ServedModel(RunsFolder(runs), "toy", limits, "cpu", gauges.batched)
    with TestClient(
        build_app({"toy": served}, gauges, limits), base_url="http://localhost"
    ) as client:
        said = [client.post("/v1/predict", content=b"x") for _ in range(3)]
        assert [answer.status_code for answer in said] == [415, 415, 429]
        assert 1 <= int(said[-1].headers["retry-after"]) <= 30
        assert client.get("/metrics").status_code == 200


def test_the_page_and_the_interface_need_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert not re.search(r"https?:|//[a-z]|@import|url\(", PAGE.read_text(encoding="utf-8"))
    described = client.get("/openapi.json").json()["paths"]["/v1/predict"]["post"]
    assert set(described["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/json",
        "image/*",
    }
    assert "429" in described["responses"]


def test_two_versions_of_a_name_are_refused(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: None)
    with pytest.raises(ConfigError, match="toy toy@1 name one model twice"):
        serve_models(["toy", "toy@1"], port=8391, device="cpu", runs=runs)


def test_others_need_a_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConfigError, match="give --token-file FILE"):
        check_address("0.0.0.0", 8000, None)
    with pytest.raises(ConfigError, match="--port 0 must be from 1"):
        check_address("127.0.0.1", 0, None)
    file = tmp_path / "token"
    with pytest.raises(ConfigError, match="can't be read"):
        read_token(file)
    file.write_text("short\n")
    with pytest.raises(ConfigError, match="at least 16 letters"):
        read_token(file)
    file.write_text(TOKEN + "\n")
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    assert not caplog.records
    file.chmod(0o644)
    assert read_token(file) == TOKEN
    assert f"can be read by every user here: chmod 600 {file}" in caplog.text


def test_a_device_that_is_not_there_is_refused(runs: Path) -> None:
    for name in ("cuda:99", "graphics"):
        with pytest.raises(ConfigError, match=f"device '{name}' can't be used here"):
            load_model(runs / "models" / "toy", name)
