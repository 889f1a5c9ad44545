"""An export gives the model's answers, says so with figures, and runs without carray or torch."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml
from PIL import ExifTags, Image

from carray.data.preparation.prepare import prepare
from carray.errors import ConfigError, DataError, DiskError, ExportError, RecordError
from carray.export.export import _told_if_full, export_model
from carray.export.forms import open_onnx, trace, write_onnx
from carray.export.graph import ModelGraph
from carray.export.hf_space import write_space
from carray.export.int8 import write_int8
from carray.export.photographs import held_photographs
from carray.export.verify import Answered, Tolerance, check, judge
from carray.inference.card import Card
from carray.inference.dataset_predictions import find_data
from carray.inference.package import write_package
from carray.inference.predictor import load_model
from carray.predictions.averaging import AverageOf, Stack, WeightedAverage
from carray.predictions.combination import Combination
from carray.predictions.views import Tta, parse_views
from carray.progress import silent
from carray.reports.export import export_lines
from carray.runs_folder import RunsFolder
from carray.training.train import train
from tests.trained import RECIPE, Trained

WITHOUT_TORCH = """
import runpy, sys
sys.modules |= dict.fromkeys(("torch", "carray", "onnx"))  # None: importing them fails
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def package_of(trained: Trained, folder: Path, space: AverageOf, views: str | None) -> Path:
    trials = [trained.study.trial(number) for number in (0, 1)]
    tta = Tta(views, "logit", parse_views(views)) if views else None
    classes = len(trained.manifest.classes)
    scales = np.linspace(0.2, 0.9, 2 * classes).reshape(2, classes)
    own = Stack(tuple(map(tuple, scales.tolist())), tuple(scales[0].tolist()))
    stack = own if space == "stack" else None
    average = WeightedAverage((0, 1), (0.7, 0.3), space, temperature=1.3, stack=stack)
    write_package(folder, trained.study.record(), trials, Combination(average, "toy", tta))
    return folder


@pytest.mark.parametrize(
    ("space", "views"),
    [("probability", "colour"), ("logit", "blur"), ("vote", "five_scales"), ("stack", None)],
)
def test_the_graph_is_the_model(
    trained: Trained, tmp_path: Path, space: AverageOf, views: str | None
) -> None:
    model = load_model(package_of(trained, tmp_path / "toy", space, views), "cpu")
    manifest = find_data(RunsFolder.at(trained.runs), model.card, None)
    held = held_photographs(manifest)
    images = list(held.read(10**6))
    expected = model.predict(images)
    graph = ModelGraph(model).eval()
    with torch.inference_mode():
        own = [graph(torch.tensor(image)[None]).numpy() for image in images]
    assert np.abs(np.concatenate(own) - expected).max() < 0.01


def test_a_transformer_is_traced_for_any_image_and_quantised(
    trained: Trained, tmp_path: Path
) -> None:
    recipe = {**RECIPE, "backbone": "test_vit", "epochs": 1}
    train(trained.data, recipe, runs=tmp_path, study="vit")
    study = RunsFolder(tmp_path).study("vit")
    write_package(tmp_path / "toy", study.record(), [study.trial(0)])
    model = load_model(tmp_path / "toy", "cpu")
    images = list(held_photographs(trained.manifest).read(10**6))[:4]
    images.append(images[0][3:, :50])  # of another size
    program, expected = trace(ModelGraph(model)), model.predict(images)
    module = program.module()
    with torch.inference_mode():
        own = [module(torch.tensor(image)[None]).numpy() for image in images]
    assert np.abs(np.concatenate(own) - expected).max() < 0.01
    plain, int8 = tmp_path / "plain.onnx", tmp_path / "int8.onnx"
    write_onnx(program, {}, plain)
    write_int8(plain, int8, iter(images), len(images), silent)
    answer = open_onnx(int8)
    own = [answer(image[None]) for image in images]
    assert np.abs(np.concatenate(own) - expected).max() < 0.1
    nodes = onnx.load(int8).graph.node
    scaled = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    in_int8 = {node.op_type for node in nodes if scaled & set(node.input)}
    assert in_int8 & {"Gemm", "MatMul"}
    assert int8.stat().st_size < plain.stat().st_size


def test_a_network_that_cannot_be_traced_is_told_in_a_sentence() -> None:
    class Branching(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.sum() > 0 else -images

    with pytest.raises(ExportError, match=r"can't make a graph of this model \(.+\)$"):
        trace(Branching())  # type: ignore[arg-type]


def test_an_onnx_file_answers_without_torch(trained: Trained, tmp_path: Path) -> None:
    package = tmp_path / "toy"
    views = Tta("perspective", "logit", parse_views("perspective"))
    merged = Combination(WeightedAverage((0,), (1.0,)), "one, tilted too", views)
    card = write_package(package, trained.study.record(), [trained.study.trial(0)], merged)
    out = tmp_path / "there" / "toy.onnx"
    done = export_model(str(package), out, runs=trained.runs)
    original, onnx = done.forms
    assert onnx.agreement == 1.0
    assert onnx.largest < 0.01
    assert abs(onnx.log_loss - original.log_loss) < 0.005
    assert sorted(file.name for file in out.parent.iterdir()) == ["toy.onnx", "toy_example.py"]
    photograph = held_photographs(trained.manifest).paths[0]
    images = [photograph, *odd_kinds(photograph, tmp_path)]
    words = [sys.executable, "-I", "-c", WITHOUT_TORCH, str(done.files[1]), *map(str, images)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    app = app_of(out, tmp_path / "space", card)
    model = load_model(package, "cpu")
    for image, line in zip(images, said.splitlines()[::3], strict=True):
        p = model.predict(image)[0]
        path, name, best = line.split("\t")
        assert path == str(image)
        assert float(best) == pytest.approx(p.max(), abs=0.01), image
        assert float(best) == pytest.approx(p[model.classes.index(name)], abs=0.01), image
        assert list(app["answer"](image).values()) == pytest.approx(list(p), abs=0.01), image
    for image in black_to_pillow(photograph, tmp_path):
        with pytest.raises(ValueError, match="save it with 8"):
            app["answer"](image)
    assert len(done.files[1].read_text().splitlines()) <= 15
    assert str(trained.data).encode() not in out.read_bytes()
    text = "\n".join(export_lines(done))
    assert "opset 20" in text
    assert f"python {done.files[1]}" in text
    assert json.dumps(done.as_dict())


def odd_kinds(photograph: Path, folder: Path) -> list[Path]:
    """Save a photograph as kinds of images that one reader takes for another picture."""
    image = Image.open(photograph).convert("RGB")
    shaded = image.convert("RGBA")
    shaded.putalpha(Image.linear_gradient("L").rotate(90).resize(image.size))
    few = image.quantize(16)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    grey = np.asarray(image.convert("L")).astype(np.uint16)
    deep, camera = (Image.fromarray(grey * scale) for scale in (257, 16))  # 16 bits, and 12
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "shaded.png": (shaded, {}),
        "palette.png": (few, {"transparency": few.getpixel((0, 0))}),
        "cmyk.jpg": (image.convert("CMYK"), {"quality": 95}),
        "turned.jpg": (image, {"quality": 95, "exif": turned}),
        "grey16.png": (deep, {}),
        "grey12.png": (camera, {"exif": turned}),
    }
    for name, (kind, options) in kinds.items():
        kind.save(folder / name, **options)
    colour16 = folder / "colour16.png"
    cv2.imwrite(str(colour16), np.asarray(image)[..., ::-1].astype(np.uint16) * 257)
    return [*(folder / name for name in kinds), colour16]


def black_to_pillow(photograph: Path, folder: Path) -> list[Path]:
    """Save a photograph with 12 bits a colour in a file of 16, and with floats up to 1."""
    pixels = np.asarray(Image.open(photograph).convert("RGB"))
    camera, shares = folder / "colour12.png", folder / "shares.tif"
    cv2.imwrite(str(camera), pixels.astype(np.uint16) * 16)
    Image.fromarray(pixels[..., 0] / np.float32(255)).save(shares)
    return [camera, shares]


def app_of(onnx: Path, folder: Path, card: Card) -> dict[str, Any]:
    """Return the names of a Space's `app.py`, run without the page that Gradio makes of it."""
    folder.mkdir()
    shutil.copyfile(onnx, folder / "model.onnx")
    write_space(folder, card, [], "blend", 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "gradio", gradio := MagicMock(Error=ValueError))
        app = runpy.run_path(str(folder / "app.py"))
    assert gradio.Image.call_args.kwargs["image_mode"] is None  # else Gradio clips and blackens
    return app


def test_a_space_has_all_that_it_runs(trained: Trained, tmp_path: Path) -> None:
    package = tmp_path / "toy"
    card = write_package(package, trained.study.record(), [trained.study.trial(0)])
    original = answered([[0.6, 0.4], [0.3, 0.7]])
    row = judge("onnx", original, original, np.array([0, 1]), 1.0)
    write_space(tmp_path, card, [row], "blend", 2)
    compile((tmp_path / "app.py").read_text(), "app.py", "exec")
    front = yaml.safe_load((tmp_path / "README.md").read_text().split("---")[1])
    assert (front["title"], front["sdk"], front["app_file"]) == ("toy", "gradio", "app.py")
    assert "onnxruntime" in (tmp_path / "requirements.txt").read_text()


def answered(p: list[list[float]]) -> Answered:
    return Answered(np.array(p, np.float32), (0.001,) * len(p))


def test_an_export_that_differs_is_refused(trained: Trained) -> None:
    held = held_photographs(trained.manifest)
    two = replace(held, rows=held.rows[:2])
    original = answered([[0.6, 0.4], [0.3, 0.7]])
    labels = np.array([0, 1])
    first = judge("original", original, original, labels, 1.0)
    near = judge("onnx", answered([[0.601, 0.399], [0.3, 0.7]]), original, labels, 1.0)
    check(near, first, two, Tolerance())
    turned = judge("onnx, int8", answered([[0.4, 0.6], [0.3, 0.7]]), original, labels, 0.3)
    with pytest.raises(
        ExportError, match=r"another class .* on 1 of 2 blend photographs .*0\.2000"
    ):
        check(turned, first, two, Tolerance())
    check(turned, first, two, Tolerance(agreement=0.5, log_loss=1.0))
    shifted = judge("onnx", answered([[0.9, 0.1], [0.3, 0.7]]), original, labels, 1.0)
    with pytest.raises(ExportError, match=r"log-loss 0\.\d+ for "):
        check(shifted, first, two, Tolerance())


def test_what_can_not_be_written_is_told_before_the_work(trained: Trained, tmp_path: Path) -> None:
    def export(out: str, to: str, int8: bool = False, model: str = "single/0000") -> None:
        export_model(model, tmp_path / out, to=to, int8=int8, runs=trained.runs)

    with pytest.raises(ConfigError, match=r"must end in \.onnx for --to onnx"):
        export("toy.pt", "onnx")
    with pytest.raises(ConfigError, match="did you mean 'onnx'"):
        export("toy.onnx", "onxx")
    with pytest.raises(ConfigError, match="--int8 needs --to onnx or openvino"):
        export("toy.pt2", "torch-export", int8=True)
    (tmp_path / "taken").write_text("kept")
    with pytest.raises(ConfigError, match="is there already: name a new folder"):
        export("taken", "hf-space")
    with pytest.raises(RecordError, match="there is no model 'nosuch'"):
        export("toy.onnx", "onnx", model="nosuch")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_full_disk_is_told_with_the_file_that_was_to_be_written(tmp_path: Path) -> None:
    target = tmp_path / "small.onnx"
    why = rf"^{target} can't be written: the disk of {tmp_path} has too little room"
    with pytest.raises(DiskError, match=why), _told_if_full(target):
        Path("/dev/full").write_bytes(b"graph")


def test_an_export_needs_images_to_be_judged_on(trained: Trained, tmp_path: Path) -> None:
    bare = prepare(trained.images, tmp_path / "data", val_size=0, blend_size=0, test_size=0)
    with pytest.raises(DataError, match="has neither blend nor val images"):
        held_photographs(bare)
