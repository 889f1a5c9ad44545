"""`carray export`: a model as something that others use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carray.cli.shared import JsonOption, ModelArgument, RunsOption, emit


def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(help="The file to write: .onnx, .pt2 or .xml.")],
    to: Annotated[str, typer.Option(help="onnx, torch-export or openvino.")] = "onnx",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="8-bit weights and activations, calibrated on training photographs."
        ),
    ] = False,
    agreement: Annotated[
        float,
        typer.Option(
            min=0, max=1, help="Least share of blend photographs with the same likeliest class."
        ),
    ] = 0.995,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Most that the log-loss on blend may differ.")
    ] = 0.005,
    data: Annotated[
        Path | None, typer.Option("--data", help="The model's data, where they have moved.")
    ] = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model, ensembles whole, as one file that needs no carray to run.

    The graph takes decoded RGB images of any size, uint8 (N, H, W, 3), and gives calibrated
    probabilities; the class names are in its metadata. It is asked about every blend photograph
    first, and refused where it answers otherwise than the model. Beside an .onnx stands an example
    of 15 lines for onnxruntime and Pillow.

    [dim]Examples:[/]

      carray export autumn-top3 --out autumn.onnx

      carray export autumn-top3 --out small.onnx --int8 --agreement 0.95 --tolerance 0.02

      carray export autumn/0007 --to openvino --out autumn.xml
    """
    from carray.export.export import export_model
    from carray.export.verify import Tolerance
    from carray.progress import progress
    from carray.reports.export import export_lines

    done = export_model(
        model,
        out,
        to=to,
        int8=int8,
        tolerance=Tolerance(agreement, tolerance),
        data=data,
        runs=runs,
        progress=progress,
    )
    emit(done, export_lines, as_json)
