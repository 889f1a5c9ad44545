"""The forms that a model is exported to: each is written from its graph, and asked for answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from carray.errors import ExportError, first_cause
from carray.extras import quieted
from carray.inference.card import Card
from carray.typing import Float32s

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from carray.export.graph import ModelGraph

Form = Literal["onnx", "torch-export", "openvino", "hf-space"]
Answer = Callable[[npt.NDArray[np.uint8]], Float32s]
"""Images (N, H, W, 3), uint8 RGB, to probabilities (N, classes)."""

SUFFIXES: dict[Form, str] = {
    "onnx": ".onnx",
    "torch-export": ".pt2",
    "openvino": ".xml",
    "hf-space": "",
}
OPSET = 20
INPUT, OUTPUT = "images", "probabilities"
CLASSIFIER = "classifier/"  # begins the names of the nodes that are not preprocessing
MOST_IMAGES, MOST_SIDE = 4096, 65535
EXAMPLE = (2, 96, 120, 3)


def metadata_of(card: Card, side: int) -> dict[str, str]:
    """Return what a file says of itself.

    `side` is how many pixels of an image matter: a JPEG may be decoded no larger than that needs.
    """
    return {
        "side": str(side),
        "classes": json.dumps(card.classes, ensure_ascii=False),
        "name": card.name,
        "study": card.study,
        "rule": card.rule,
        "temperature": str(card.temperature),
        "crop": card.crop,
        "manifest_hash": card.manifest_hash,
        "carray": card.versions.get("carray", ""),
    }


def trace(graph: ModelGraph) -> ExportedProgram:
    """Return the graph as torch.export has it, for any number and size of images.

    Raises:
        ExportError: a network computes otherwise for other images, or by what torch can't follow.
    """
    import torch

    limits = {"n": MOST_IMAGES, "h": MOST_SIDE, "w": MOST_SIDE}
    dims = {at: torch.export.Dim(name, min=1, max=m) for at, (name, m) in enumerate(limits.items())}
    images = torch.zeros(EXAMPLE, dtype=torch.uint8)
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(graph.eval(), (images,), dynamic_shapes=(dims,))
    except Exception as error:  # of what torch meets in a network, it raises many kinds
        why = first_cause(error, 200)
        raise ExportError(f"torch.export can't make a graph of this model ({why})") from error


def write_torch_export(program: ExportedProgram, about: dict[str, str], file: Path) -> None:
    """Write a program with its metadata, for `torch.export.load`."""
    import torch

    with quiet():
        torch.export.save(program, file, extra_files={"carray.json": json.dumps(about)})


def write_onnx(program: ExportedProgram, about: dict[str, str], file: Path) -> None:
    """Write a program as ONNX, batch norms folded into convolutions, metadata inside."""
    import onnx
    import torch

    with quiet():
        made = torch.onnx.export(
            program,
            (),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamo=True,
            optimize=True,
            verbose=False,
        )
    assert made is not None
    model = made.model_proto
    for node in model.graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == "namespace"), "")
        node.name = (CLASSIFIER if ".classifier" in scopes else "input/") + node.name
        del node.metadata_props[:]  # paths of this machine among them
    for value in (*model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.helper.set_model_props(model, about)
    onnx.save(model, file)


def write_openvino(onnx_file: Path, file: Path) -> None:
    """Convert an ONNX file to OpenVINO's pair of files, weights in float32.

    OpenVINO computes float64 in float32, so that an image of which one side grows and the other
    shrinks is resized otherwise in some rows; photographs larger than a network's input aren't.
    """
    import openvino

    openvino.save_model(openvino.convert_model(onnx_file), file, compress_to_fp16=False)


def open_form(form: Form, file: Path, threads: int = 0) -> Answer:
    """Return what answers from an exported file; `threads` 0 takes the library's own choice."""
    if form == "torch-export":
        return _open_torch(file)
    return _open_openvino(file) if form == "openvino" else open_onnx(file, threads)


def open_onnx(file: Path, threads: int = 0) -> Answer:
    """Return what answers from an ONNX file, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: _floats(session.run([OUTPUT], {INPUT: images})[0])


def _open_torch(file: Path) -> Answer:
    import torch

    with quiet():
        module = torch.export.load(file).module()

    def answer(images: npt.NDArray[np.uint8]) -> Float32s:
        with torch.inference_mode():
            return _floats(module(torch.tensor(images)).numpy())

    return answer


def _open_openvino(file: Path) -> Answer:
    import openvino

    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: _floats(compiled([images])[0])


def _floats(found: Any) -> Float32s:
    return np.asarray(found, np.float32)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what exporters warn of and log about themselves to themselves."""
    names = ("", "torch.onnx", "torch.export", "torch.utils.cpp_extension", "onnxscript", "onnx_ir")
    unheard = logging.NullHandler()  # with one, nothing sets the root logger up to print
    logging.getLogger().addHandler(unheard)
    try:
        with quieted(names, logging.ERROR):
            yield
    finally:
        logging.getLogger().removeHandler(unheard)
