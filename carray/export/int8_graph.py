"""A graph with any of its layers in 8 bits: what rounding does to answers, and the file."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from carray.export.forms import INPUT, OUTPUT
from carray.predictions.averaging import TINY
from carray.typing import Float32s

LAYERS = ("Conv", "Gemm", "MatMul", "Add", "AveragePool", "GlobalAveragePool")
ROUNDING = ("QuantizeLinear", "DequantizeLinear")
SUFFIX = "/int8"  # ends the names of values that went through 8 bits

Image = npt.NDArray[np.uint8]  # (H, W, 3)


@dataclass(frozen=True)
class Part:
    """What of a layer can be in 8 bits: its weights with its bias, or what it reads."""

    layer: str
    weights: bool

    @property
    def name(self) -> str:
        """Of the input that switches it."""
        return f"{self.layer}/{'weights' if self.weights else 'activations'}"


class PartlyRounded:
    """A graph with any parts of its layers in 8 bits.

    Nodes are the source's. A part in 8 bits is what onnxruntime's quantiser rounded, any other
    is as it was, so that no Clip is lost whose bounds only a rounded value has.
    """

    def __init__(self, source: Any, rounded: Any, images: Sequence[Image]) -> None:
        self._source, self._images = source, images
        self._rounding = [node for node in rounded.graph.node if node.op_type in ROUNDING]
        self._constants = {each.name: each for each in rounded.graph.initializer}
        made = {n.output[0]: n.input[0] for n in self._rounding if n.op_type == ROUNDING[1]}
        self._inputs: dict[Part, dict[int, str]] = {}  # place of an input -> what is rounded of it
        for node in rounded.graph.node:
            for at, name in enumerate(node.input):
                if node.op_type in LAYERS and name in made:
                    part = Part(node.name, made[name] in self._constants)
                    self._inputs.setdefault(part, {})[at] = name + SUFFIX
        for node in self._rounding:
            if node.op_type == ROUNDING[1]:
                node.output[0] += SUFFIX  # onnxruntime names a rounded bias as the bias
        self._makers = {node.output[0]: node for node in self._rounding}
        self._correct_biases()
        self._switched = _session(self.model(None))
        self._exact = self._logits([])

    @property
    def parts(self) -> tuple[Part, ...]:
        """What can be in 8 bits."""
        return tuple(self._inputs)

    def size(self, layer: str) -> int:
        """Return the number of a layer's weights."""
        names = self._inputs[Part(layer, weights=True)].values()
        rounded = (self._constants[self._makers[name].input[0]] for name in names)
        return sum(math.prod(each.dims) for each in rounded)

    def stray(self, parts: Collection[Part], images: int | None = None) -> float:
        """Return how far logits are off with `parts` in 8 bits, root mean square."""
        apart = self._logits(parts, images) - self._exact[:images]
        return float(np.sqrt((apart**2).mean()))

    def _logits(self, parts: Collection[Part], images: int | None = None) -> Float32s:
        """Return logarithms of probabilities, less their mean."""
        switches = {part.name: np.array(part in parts) for part in self._inputs}
        asked = ({INPUT: image[None]} | switches for image in self._images[:images])
        p = np.concatenate([self._switched.run([OUTPUT], given)[0] for given in asked])
        log_p = np.log(np.maximum(p, TINY))
        return np.asarray(log_p - log_p.mean(1, keepdims=True), np.float32)

    def model(self, parts: Collection[Part] | None) -> Any:
        """Return the model with `parts` in 8 bits; None: an input of each one's name decides."""
        import onnx
        from onnxruntime.quantization.onnx_model import ONNXModel

        model = onnx.ModelProto()
        model.CopyFrom(self._source)
        graph, switches = model.graph, []
        nodes = {node.name: node for node in graph.node}
        for part in self._inputs if parts is None else parts:
            node = nodes[part.layer]
            if parts is None:
                kind = onnx.TensorProto.BOOL
                graph.input.append(onnx.helper.make_tensor_value_info(part.name, kind, []))
            for at, name in self._inputs[part].items():
                if parts is not None and part.weights and replace(part, weights=False) not in parts:
                    name = self._unpacked(name, graph)
                if parts is None:
                    either, name = [part.name, name, node.input[at]], f"{part.layer}/{at}"
                    switches.append(onnx.helper.make_node("Where", either, [name]))
                node.input[at] = name
        own = {each.name for each in graph.initializer}
        graph.initializer.extend(each for name, each in self._constants.items() if name not in own)
        graph.node.extend((*self._rounding, *switches))
        _keep_what_is_used(graph)
        ordered = ONNXModel(model)
        ordered.topological_sort()
        return ordered.model

    def _unpacked(self, name: str, graph: Any) -> str:
        """Return the name of rounded weights that are made floats once, as a session is opened."""
        from onnx import TensorProto, helper
        from onnx.numpy_helper import from_array, to_array

        if any(node.output[0] == f"{name}/floats" for node in graph.node):
            return f"{name}/floats"  # of several nodes: views share their weights
        rounding = self._makers[name]
        weights = self._constants[rounding.input[0]]
        shape = [1] * len(weights.dims)
        shape[next((each.i for each in rounding.attribute if each.name == "axis"), 0)] = -1
        steps = to_array(self._constants[rounding.input[1]]).reshape(shape)
        graph.initializer.append(from_array(steps, f"{name}/steps"))
        cast = helper.make_node("Cast", [weights.name], [f"{name}/whole"], to=TensorProto.FLOAT)
        floats = [f"{name}/whole", f"{name}/steps"]
        graph.node.extend((cast, helper.make_node("Mul", floats, [f"{name}/floats"])))
        return f"{name}/floats"

    def _correct_biases(self) -> None:
        """Take what rounded weights add to each channel on average off its bias."""
        from onnx.numpy_helper import from_array, to_array

        exact = {each.name: each for each in self._source.graph.initializer}
        layers = [  # with weights (out, in of its group, ...) and a bias
            node
            for node in self._source.graph.node
            if node.op_type in ("Conv", "Gemm")
            and {1, 2} <= set(self._inputs.get(Part(node.name, weights=True), {}))
            and (node.op_type == "Conv" or any(each.name == "transB" for each in node.attribute))
        ]
        means = self._channel_means([node.input[0] for node in layers])
        for node in layers:
            places = self._inputs[Part(node.name, weights=True)]
            weights, bias = (self._makers[places[at]].input for at in (1, 2))
            true = to_array(exact[node.input[1]])
            shape = (-1, *[1] * (true.ndim - 1))
            steps = to_array(self._constants[weights[1]]).reshape(shape)
            added = to_array(self._constants[weights[0]]) * steps - true
            per_input = added.reshape(*true.shape[:2], -1).sum(2)  # (out, in of its group)
            groups = means[node.input[0]].reshape(-1, true.shape[1])
            seen = np.repeat(groups, len(true) // len(groups), axis=0)
            wanted = to_array(exact[node.input[2]]) - (per_input * seen).sum(1)
            steps = to_array(self._constants[bias[1]])
            rounded = np.round(wanted / steps).astype(np.int32)
            self._constants[bias[0]].CopyFrom(from_array(rounded, bias[0]))

    def _channel_means(self, names: Sequence[str]) -> dict[str, Float32s]:
        """Return the mean (C,) over the images of values (N, C, ...)."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self._source)
        del model.graph.output[:]
        wanted = list(dict.fromkeys(names))
        model.graph.output.extend(map(onnx.helper.make_empty_tensor_value_info, wanted))
        session = _session(model)
        sums: dict[str, Any] = dict.fromkeys(wanted, 0.0)
        for image in self._images:
            for name, value in zip(wanted, session.run(wanted, {INPUT: image[None]}), strict=True):
                sums[name] = sums[name] + value.reshape(*value.shape[:2], -1).mean((0, 2))
        return {name: value / len(self._images) for name, value in sums.items()}


def _session(model: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


def _keep_what_is_used(graph: Any) -> None:
    """Drop nodes and constants that no output needs."""
    maker = {name: node for node in graph.node for name in node.output}
    used: set[str] = set()
    asked = [each.name for each in graph.output]
    while asked:
        name = asked.pop()
        if name not in used:
            used.add(name)
            asked += maker[name].input if name in maker else ()
    nodes = [node for node in graph.node if used & set(node.output)]
    constants = [each for each in graph.initializer if each.name in used]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
