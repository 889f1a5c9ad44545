"""An ONNX file's classifiers in 8 bits: static quantisation, calibrated on training photographs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carray.export.forms import CLASSIFIER, INPUT, quiet
from carray.typing import Progress

CALIBRATION_IMAGES = 128
FLOAT_CONVS = 2
"""How many convolutions of each classifier, those that see pixels, stay in float32: four MobileNets
kept the likeliest class of 0.95 of their photographs so in place of 0.90, at the same size."""
QUANTISED = (  # activations too, so that a Conv's scale is that of what its ReLU6 lets through
    *("Conv", "Gemm", "MatMul", "Relu", "Clip", "Add"),
    *("MaxPool", "AveragePool", "GlobalAveragePool"),
)


def write_int8(
    source: Path,
    file: Path,
    images: Iterator[npt.NDArray[np.uint8]],
    total: int,
    progress: Progress,
) -> None:
    """Write `source` with 8-bit weights and activations in its classifiers.

    Preprocessing, the first convolutions, averaging and softmax stay in float32. Weights are
    scaled by channel, activations by what they reach on `images`, each (H, W, 3), `total` of them.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    nodes = onnx.load(source, load_external_data=False).graph.node
    early = _early_convs(nodes)
    own = [
        node.name
        for node in nodes
        if node.name.startswith(CLASSIFIER) and node.op_type in QUANTISED and node.name not in early
    ]
    with quiet(), progress("calibrating int8", total) as advance:
        quantize_static(
            source,
            file,
            _Reader(images, advance),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=own,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _early_convs(nodes: Iterable[Any]) -> set[str]:
    """Return the names of the convolutions that fewer than `FLOAT_CONVS` others come before."""
    before: dict[str, int] = {}  # a tensor -> convolutions that lie on the way to it
    early = set()
    for node in nodes:  # in the order in which they compute
        count = max((before.get(name, 0) for name in node.input), default=0)
        is_conv = node.op_type == "Conv" and node.name.startswith(CLASSIFIER)
        if is_conv and count < FLOAT_CONVS:
            early.add(node.name)
        before |= dict.fromkeys(node.output, count + is_conv)
    return early


class _Reader:
    """What onnxruntime reads calibration images from."""

    def __init__(self, images: Iterator[Any], advance: Any) -> None:
        self._images, self._advance = images, advance

    def get_next(self) -> dict[str, Any] | None:
        """Return the next input, None after the last."""
        image = next(self._images, None)
        if image is None:
            return None
        self._advance(1)
        return {INPUT: image[None]}

    def set_range(self, start_index: int, end_index: int) -> None:
        """Images are read one after the other; there are no ranges."""

    def __len__(self) -> int:
        return 0
