"""An ONNX file's classifiers in 8 bits: static quantisation, calibrated on training photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carray.export.forms import CLASSIFIER, INPUT, quiet
from carray.typing import Progress

CALIBRATION_IMAGES = 128
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

    Preprocessing, averaging and softmax stay in float32. Weights are scaled by channel,
    activations by what they reach on `images`, each (H, W, 3), `total` of them.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    nodes = onnx.load(source, load_external_data=False).graph.node
    own = [n.name for n in nodes if n.name.startswith(CLASSIFIER) and n.op_type in QUANTISED]
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
