"""8 bits keep the answers: biases are corrected, the costliest layers stay, no Clip is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from carray.errors import ExportError
from carray.export.forms import INPUT, OUTPUT, open_onnx
from carray.export.int8 import write_int8
from carray.progress import silent

SIDE, CHANNELS, CLASSES, COSTLY = 12, 16, 5, 1


def network(file: Path) -> None:
    """Write nine depthwise convolutions, each clipped; 8 bits suit all but the first's weights."""
    rng = np.random.default_rng(0)
    constants: dict[str, Any] = {
        "widen": rng.uniform(0, 0.004, (CHANNELS, 3, 1, 1)),
        "head": rng.normal(0, 1, (CLASSES, CHANNELS, 1, 1)),
        "flat": np.array([0, CLASSES]),
        "none": np.zeros(CHANNELS),
        "low": np.array(0.0),
        "high": np.array(6.0),
    }
    nodes = [
        helper.make_node("Cast", [INPUT], ["float"], "input/cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["x"], "input/turn", perm=(0, 3, 1, 2)),
        helper.make_node("Conv", ["x", "widen", "none"], ["v0"], "classifier/widen"),
    ]
    for at in range(1, 10):
        weights = rng.uniform(0.1, 0.12, (CHANNELS, 1, 3, 3))
        if at == COSTLY:  # small weights beside a large one are rounded away, all to the same side
            weights = np.full((CHANNELS, 1, 3, 3), 0.0035)
            weights[:, 0, 1, 1] = 1.0
        constants[f"w{at}"] = weights
        conv = [f"v{at - 1}", f"w{at}", "none"]
        padding: dict[str, Any] = {"group": CHANNELS, "pads": (1, 1, 1, 1)}
        nodes += [
            helper.make_node("Conv", conv, [f"c{at}"], f"classifier/conv{at}", **padding),
            helper.make_node("Clip", [f"c{at}", "low", "high"], [f"v{at}"], f"classifier/clip{at}"),
        ]
    nodes += [
        helper.make_node("Conv", ["v9", "head"], ["map"], "classifier/head"),
        helper.make_node("GlobalAveragePool", ["map"], ["mean"], "output/mean"),
        helper.make_node("Reshape", ["mean", "flat"], ["logits"], "output/flat"),
        helper.make_node("Softmax", ["logits"], [OUTPUT], "output/softmax"),
    ]
    arrays = {
        name: each.astype(np.int64 if name == "flat" else np.float32)
        for name, each in constants.items()
    }
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ("n", SIDE, SIDE, 3))],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ("n", CLASSES))],
        [numpy_helper.from_array(each, name) for name, each in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), file)


def some_images() -> list[Any]:
    rng = np.random.default_rng(1)
    levels = rng.integers(20, 255, (24, 1, 1, 3))
    return list(rng.integers(0, levels, (24, SIDE, SIDE, 3)).astype(np.uint8))


def logits(file: Path) -> Any:
    answer = open_onnx(file)
    log_p = np.log(np.concatenate([answer(image[None]) for image in some_images()]))
    return log_p - log_p.mean(1, keepdims=True)


def stray(file: Path, exact: Path) -> float:
    return float(np.sqrt(((logits(file) - logits(exact)) ** 2).mean()))


def types_read(file: Path, layer: str) -> set[str]:
    """Return what makes a layer's inputs."""
    nodes = onnx.load(file).graph.node
    reads = set(next(node for node in nodes if node.name == layer).input)
    return {node.op_type for node in nodes if reads & set(node.output)}


def quantised(folder: Path, most_stray: float) -> tuple[Path, Path, Any]:
    exact, file = folder / "exact.onnx", folder / "int8.onnx"
    network(exact)
    images = some_images()
    return exact, file, write_int8(exact, file, iter(images), len(images), silent, most_stray)


def test_what_rounded_weights_add_is_taken_off_the_biases(tmp_path: Path) -> None:
    exact, file, done = quantised(tmp_path, 1.0)
    assert (done.arithmetic, done.in_float) == (True, 0)
    assert stray(file, exact) < 0.02  # 0.031 with the biases as they were
    assert types_read(file, f"classifier/conv{COSTLY}") == {"DequantizeLinear"}


def test_the_costliest_layers_stay_in_float_as_training_images_say(tmp_path: Path) -> None:
    exact, file, done = quantised(tmp_path, 0.007)
    assert (done.arithmetic, done.in_float) == (True, 1)
    assert stray(file, exact) < 0.007
    assert types_read(file, f"classifier/conv{COSTLY}") == {"Conv"}
    assert types_read(file, "classifier/conv5") == {"DequantizeLinear"}


def test_weights_beside_8_bit_activations_have_7_bits(tmp_path: Path) -> None:
    for most_stray, most in ((0.007, 64), (0.001, 127)):
        _, file, _ = quantised(tmp_path, most_stray)
        constants = onnx.load(file).graph.initializer
        whole = [numpy_helper.to_array(c) for c in constants if c.data_type == TensorProto.INT8]
        assert max(np.abs(each).max() for each in whole if each.size > 1) == most


def test_weights_alone_are_rounded_where_too_many_layers_would_stay(tmp_path: Path) -> None:
    exact, file, done = quantised(tmp_path, 0.001)
    assert not done.arithmetic
    assert 0 < done.in_float < done.layers
    assert stray(file, exact) < 0.001
    assert types_read(file, "classifier/conv5") == {"Clip", "Mul"}
    with pytest.raises(ExportError, match="8 bits change the answers in whichever layer"):
        quantised(tmp_path, 0.0)


def test_a_file_in_8_bits_answers_as_its_nodes_say(tmp_path: Path) -> None:
    """onnxruntime fuses a Clip with the rounding after it; a float reader must still see it.

    Without VNNI its products of 8 and 8 bits overflow, those of 8 and 7 don't.
    """
    for most_stray in (0.001, 0.007, 1.0):
        _, file, _ = quantised(tmp_path, most_stray)
        answers = []
        for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"):
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            session = onnxruntime.InferenceSession(str(file), options)
            answers.append([session.run(None, {INPUT: i[None]})[0] for i in some_images()])
        fused, plain = map(np.concatenate, answers)
        assert np.abs(fused - plain).max() < 0.002, most_stray
