"""`carray export`, `serve`, `bench`, `calibrate`: a model as something that others use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carray.cli.shared import (
    JsonOption,
    LabelPartsOption,
    ModelArgument,
    RunsOption,
    check_models,
    emit,
)

MovedDataOption = Annotated[
    Path | None, typer.Option("--data", help="The model's data, where they have moved.")
]


def export(
    model: ModelArgument,
    out: Annotated[
        Path, typer.Option(help="The file to write: .onnx, .pt2 or .xml; of hf-space a folder.")
    ],
    to: Annotated[str, typer.Option(help="onnx, torch-export, openvino or hf-space.")] = "onnx",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="8-bit weights, and arithmetic where --agreement allows it, calibrated on "
            "training photographs; the layers that cost most stay in float32.",
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
    data: MovedDataOption = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model, ensembles whole, as one file that needs no carray to run.

    The graph takes decoded RGB images of any size, uint8 (N, H, W, 3), and gives calibrated
    probabilities; the class names are in its metadata. It is asked about every blend photograph
    first, and refused where it answers otherwise than the model. Large JPEGs are to be decoded
    smaller, as carray does: beside an .onnx stands an example of 15 lines for onnxruntime and
    Pillow that does it.

    [dim]Examples:[/]

      carray export autumn-top3 --out autumn.onnx

      carray export autumn-top3 --out small.onnx --int8 --agreement 0.95

      carray export autumn/0007 --to openvino --out autumn.xml

      carray export autumn-top3 --to hf-space --out my-space
    """
    check_models(runs, model)
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


def serve(
    models: Annotated[
        list[str],
        typer.Argument(help="Model packages (names or folders), or trials: STUDY/NUMBER."),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that others reach needs --token-file.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="A file with the token that requests must send.")
    ] = None,
    rate: Annotated[
        int,
        typer.Option(min=0, help="Requests a minute that one client may send; 0: any number."),
    ] = 0,
    label_parts: LabelPartsOption = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, ...; default: the GPU where there is one.")
    ] = None,
    runs: RunsOption = None,
) -> None:
    """Answer with models over HTTP, and on a page where photographs are dropped.

    POST /v1/predict takes images as multipart, base64 in JSON, or one as it is; `?level=model`
    answers for make and model, `?level=auto` as deep as the model is sure. /openapi.json tells
    the rest; /healthz, /readyz and /metrics are for who operates it. A newer version of a model is
    taken without dropping a request. Only this machine reaches it unless --host says otherwise.

    [dim]Examples:[/]

      carray serve autumn-top3

      carray serve autumn-top3 small --port 8080

      carray serve autumn-top3 --host 0.0.0.0 --token-file token.txt
    """
    check_models(runs, *models)
    from carray.cli.log import log_on_stdout
    from carray.serving.limits import Limits
    from carray.serving.server import serve_models

    with log_on_stdout("carray.serving"):
        serve_models(
            models,
            host=host,
            port=port,
            token_file=token_file,
            limits=Limits(rate_per_minute=rate),
            device=device,
            label_parts=label_parts,
            runs=runs,
        )


def bench(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="A model package (name or folder), a trial (STUDY/NUMBER), or a study: the "
            "networks of its trials."
        ),
    ],
    forms: Annotated[
        str,
        typer.Option(
            help="Of eager, compiled, onnx, int8, openvino; commas between. Of a model alone, as "
            "are --batches and --seconds."
        ),
    ] = "eager,compiled,onnx,int8",
    batches: Annotated[str, typer.Option(help="Images answered at once, commas between.")] = (
        "1,8,32"
    ),
    seconds: Annotated[float, typer.Option(help="Of each form at each batch size.")] = 3.0,
    threads: Annotated[int, typer.Option(min=0, help="Of the CPU; 0: torch's own choice.")] = 0,
    on: Annotated[str, typer.Option(help="Of a study: cpu or cuda.")] = "cpu",
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time a model on this machine's CPU: as PyTorch, compiled, as ONNX, in 8 bits.

    Each form goes from decoded images to calibrated probabilities. How far the answers of the 8-bit
    form are from the model's, `carray export --int8` says. Of a study each network is timed once,
    as PyTorch, one image at a time; `carray leaderboard` and `experiments` show it from then on.

    [dim]Examples:[/]

      carray bench autumn-top3

      carray bench autumn

      carray bench autumn-top3 --forms eager,onnx,openvino --batches 1 --threads 1
    """
    from carray.cli.analysis import parse_numbers
    from carray.errors import ConfigError
    from carray.inference.inputs import is_study
    from carray.runs_folder import RunsFolder

    if is_study(RunsFolder.at(runs), model):
        for name in ("forms", "batches", "seconds"):
            source = context.get_parameter_source(name)
            if source and source.name != "DEFAULT":
                raise ConfigError(
                    f"--{name} is for a model, and {model} is a study, whose networks are timed as "
                    "PyTorch, one image at a time: leave it out, or name a model"
                )
        _bench_study(model, on, threads, runs, as_json)
        return
    if on != "cpu":
        raise ConfigError(f"--on {on} is of a study: a model's forms are timed on this CPU")
    check_models(runs, model)
    from carray.export.bench import bench_model
    from carray.progress import progress
    from carray.reports.export import bench_lines

    found = bench_model(
        model,
        forms=[form.strip() for form in forms.split(",") if form.strip()],
        batches=parse_numbers("--batches", batches),
        seconds=seconds,
        threads=threads,
        runs=runs,
        progress=progress,
    )
    emit(found, bench_lines, as_json)


def _bench_study(name: str, on: str, threads: int, runs: str | None, as_json: bool) -> None:
    from carray.ensemble.budget import checked_device
    from carray.inference.measure_network import measure_study
    from carray.progress import progress
    from carray.reports.network_costs import study_costs_json, study_costs_lines
    from carray.runs_folder import RunsFolder

    device, where = checked_device(on), RunsFolder.at(runs)
    folder = where.find_study(name)
    measure_study(folder, device, threads, progress)
    where.keep(folder.costs_file)
    emit(
        folder,
        lambda folder: study_costs_lines(folder, device),
        as_json,
        lambda folder: study_costs_json(folder, device),
    )


def calibrate(
    model: ModelArgument,
    coverage: Annotated[
        float, typer.Option(help="How often a set of classes should hold the right one.")
    ] = 0.95,
    false_alarms: Annotated[
        float, typer.Option(help="Share of known images that may be called unknown.")
    ] = 0.05,
    unknown: Annotated[
        list[Path] | None,
        typer.Option("--unknown", help="Images of other things, to judge it by; may be repeated."),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Measure on test too; it is recorded.")
    ] = False,
    neighbours: Annotated[
        bool,
        typer.Option(
            "--neighbours",
            help="Keep small pictures of the training images in the model: a server shows the "
            "nearest.",
        ),
    ] = False,
    data: MovedDataOption = None,
    runs: RunsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Teach a model to say a set of classes, and "unknown", at rates that are measured.

    Thresholds are chosen on blend: conformal sets (LAC or APS, the smaller) that hold the right
    class as often as is asked, and an energy above which an image is like nothing trained on.
    A class with very many images there (100 of them at 0.95) has a set's threshold of its own.
    They are kept in the package; `carray serve` answers with both.

    [dim]Examples:[/]

      carray calibrate autumn-top3

      carray calibrate autumn-top3 --coverage 0.9 --unknown photos/trucks

      carray calibrate autumn-top3 --neighbours
    """
    check_models(runs, model)
    from carray.analysis.calibrate import calibrate_model
    from carray.progress import progress
    from carray.reports.calibration import reliability_lines

    found = calibrate_model(
        model,
        coverage=coverage,
        false_alarm_rate=false_alarms,
        unknown=unknown or [],
        open_test=test,
        neighbours=neighbours,
        data=data,
        runs=runs,
        progress=progress,
    )
    emit(found, reliability_lines, as_json)
