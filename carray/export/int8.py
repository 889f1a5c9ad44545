"""An ONNX file's classifiers in 8 bits, but for the layers that training photographs forbid."""

from __future__ import annotations

import math
import tempfile
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carray.errors import ExportError
from carray.export.forms import CLASSIFIER, INPUT, quiet
from carray.export.int8_graph import LAYERS, Image, Part, PartlyRounded
from carray.typing import Progress

CALIBRATION_IMAGES = 128
MEASURED_IMAGES = 16  # of these: what rounding does to answers and means
RANKED_IMAGES = 4  # of those: what each layer does alone
FEW = 8  # more than 1/8 of the layers in float32, and 8-bit arithmetic between them gains no time
HOPEFUL = 2  # straying by more times what is allowed isn't mended by a few layers in float32
# so that a Conv's scale is that of what its ReLU6 lets through
FOLLOWERS = ("Relu", "Clip", "MaxPool")


@dataclass(frozen=True)
class Quantised:
    """What `write_int8` decided."""

    arithmetic: bool
    """Activations are in 8 bits, too; else it computes in float32 with rounded weights."""
    layers: int
    """That could be in 8 bits."""
    in_float: int
    """Of them, left in float32."""


def write_int8(
    source: Path,
    file: Path,
    images: Iterator[Image],
    total: int,
    progress: Progress,
    most_stray: float = math.inf,
) -> Quantised:
    """Write `source` with 8-bit weights and activations in its classifiers.

    Weights are scaled by channel, activations by what they reach on `images`, `total` of them.
    Beside activations of 8 bits weights have 7, as onnxruntime advises: a CPU without VNNI adds two
    products in 16 bits, which products of 8 bits overflow, and the file would answer otherwise
    there. What rounded weights add to a channel on average is taken off its bias (Nagel et al.
    2019, arXiv:1906.04721). What each layer alone does to the answers is measured, and the
    costliest layers stay in float32 until logits stray by at most `most_stray`, root mean square.
    If those are more than a few, only weights are rounded, to 8 bits, by the same measure.

    Raises:
        ExportError: every layer would have to stay.
    """
    import onnx

    with quiet(), progress("calibrating int8", total) as advance:
        graphs, kept = _rounded(source, images, advance, weight_bits=7)
    done, parts = _chosen(graphs, True, most_stray, progress)
    if done.in_float > done.layers // FEW:
        with quiet(), progress("rounding weights alone", len(kept)) as advance:
            graphs, _ = _rounded(source, iter(kept), advance, weight_bits=8)
        done, parts = _chosen(graphs, False, most_stray, progress)
    if not parts:
        raise ExportError(
            "8 bits change the answers in whichever layer they are: leave --int8, or allow more "
            "with --agreement"
        )
    onnx.save(graphs.model(parts), file)
    return done


def _chosen(
    graphs: PartlyRounded, arithmetic: bool, most_stray: float, progress: Progress
) -> tuple[Quantised, list[Part]]:
    """Return what can be in 8 bits; the costliest layers, measured one by one, can't.

    Where `arithmetic` strays too far to be mended by a few layers, they all can't.
    """
    parts: dict[str, list[Part]] = {}
    for part in graphs.parts:
        if arithmetic or part.weights:
            parts.setdefault(part.layer, []).append(part)
    layers = list(parts)

    def stray_of(count: int) -> float:
        return graphs.stray([part for layer in layers[:count] for part in parts[layer]])

    count = len(layers)
    all_stray = stray_of(count)
    if arithmetic and all_stray > HOPEFUL * most_stray:
        return Quantised(True, count, count), []
    if all_stray > most_stray:
        with progress("rounding one layer at a time", count, "layers") as advance:
            costs = {}
            for layer in parts:
                costs[layer] = graphs.stray(parts[layer], RANKED_IMAGES)
                advance(1)
        sizes = {layer: 1 if arithmetic else graphs.size(layer) for layer in parts}
        layers.sort(key=lambda layer: costs[layer] ** 2 / sizes[layer])  # for what it saves
        with progress("choosing layers", count.bit_length(), "tries") as advance:

            def tried(count: int) -> float:
                advance(1)
                return stray_of(count)

            count = bisect_right(range(count), most_stray, key=tried) - 1
    done = Quantised(arithmetic, len(layers), len(layers) - count)
    return done, [part for layer in layers[:count] for part in parts[layer]]


def _rounded(
    source: Path, images: Iterator[Image], advance: Any, weight_bits: int
) -> tuple[PartlyRounded, list[Image]]:
    """Return the graph that can have each layer in 8 bits, and the first of the images."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    own = [
        node.name
        for node in onnx.load(source, load_external_data=False).graph.node
        if node.name.startswith(CLASSIFIER) and node.op_type in LAYERS + FOLLOWERS
    ]
    reader = _Reader(images, advance)
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        quantize_static(
            source,
            file := Path(folder) / "rounded.onnx",
            reader,
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=own,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=weight_bits < 8,
        )
        return PartlyRounded(onnx.load(source), onnx.load(file), reader.kept), reader.kept


class _Reader:
    """What onnxruntime reads calibration images from."""

    def __init__(self, images: Iterator[Image], advance: Any) -> None:
        self._images, self._advance = images, advance
        self.kept: list[Image] = []

    def get_next(self) -> dict[str, Any] | None:
        """Return the next input, None after the last."""
        image = next(self._images, None)
        if image is None:
            return None
        if len(self.kept) < MEASURED_IMAGES:
            self.kept.append(image)
        self._advance(1)
        return {INPUT: image[None]}

    def set_range(self, start_index: int, end_index: int) -> None:
        """Images are read one after the other; there are no ranges."""

    def __len__(self) -> int:
        return 0
