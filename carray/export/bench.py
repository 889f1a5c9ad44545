"""How fast a model answers on this machine, in each form that it can have here."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt
import torch

from carray.errors import ConfigError, did_you_mean, first_cause
from carray.export.forms import (
    Answer,
    metadata_of,
    open_form,
    quiet,
    trace,
    write_onnx,
    write_openvino,
)
from carray.export.graph import ModelGraph
from carray.export.int8 import write_int8
from carray.inference.inputs import find_package
from carray.inference.measure_network import MB, call_seconds
from carray.inference.predictor import Model, load_model
from carray.json_file import JsonResult
from carray.models.classifier import Classifier
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.typing import Float32s, Progress

Kind = Literal["eager", "compiled", "onnx", "int8", "openvino"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BATCHES = (1, 8, 32)
SECONDS = 3.0
WIDTH, HEIGHT = 640, 480
CALIBRATION_IMAGES = 8  # noise will do: scales don't change the time

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing(JsonResult):
    """One form at one batch size."""

    form: Kind
    batch: int
    p50: float
    """Milliseconds of a batch, half of them take less."""
    p95: float
    images_per_second: float
    mb: float
    """Of the weights or the file, 10^6 bytes."""


@dataclass(frozen=True)
class Bench(JsonResult):
    """What `bench_model` measured."""

    model: str
    threads: int
    width: int
    height: int
    """Of the decoded images that are answered."""
    timings: tuple[Timing, ...]
    missing: dict[str, str]
    """Form -> why it can't be measured here."""


def bench_model(
    model: str,
    *,
    forms: Sequence[str] = KINDS,
    batches: Sequence[int] = BATCHES,
    seconds: float = SECONDS,
    threads: int = 0,
    runs: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Bench:
    """Time a model's forms on this machine's CPU, from decoded images to probabilities.

    Args:
        model: a package's name or folder, or a trial (`STUDY/NUMBER`).
        forms: which of `KINDS`.
        batches: how many images are answered at once.
        seconds: how long each form runs at each batch size.
        threads: of the CPU; 0 takes torch's own choice.
        runs: the runs folder.
        progress: shows which form is timed, and how far it is.

    Raises:
        ConfigError: a form is unknown, or a number is out of range.
        RecordError: there is no such model.
    """
    kinds = [_kind(form) for form in forms]
    if not batches or min(batches) < 1 or seconds <= 0 or threads < 0:
        raise ConfigError(f"--batches {list(batches)} and --seconds {seconds} must be above 0")
    package = find_package(RunsFolder.at(runs), model)
    if threads:
        torch.set_num_threads(threads)
    used = torch.get_num_threads()
    timings: list[Timing] = []
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="carray-bench-") as folder:
        forge = _Forms(package, Path(folder), used, progress)
        for at, kind in enumerate(kinds, start=1):
            what = f"{kind} (form {at} of {len(kinds)})"
            _logger.info(f"making {what}")
            try:
                answer, mb = forge.make(kind)
                with progress(f"timing {what}", len(batches), "batch sizes") as advance:
                    for batch in batches:
                        timings.append(_timed(kind, answer, batch, seconds, mb))
                        advance(1)
            except Exception as error:  # a form that this machine lacks: the others are told
                missing[kind] = first_cause(error, 200)
    return Bench(forge.name, used, WIDTH, HEIGHT, tuple(timings), missing)


def _kind(form: str) -> Kind:
    found = next((kind for kind in KINDS if kind == form), None)
    if found is None:
        hint = did_you_mean(form, KINDS) or f": it is one of {', '.join(KINDS)}"
        raise ConfigError(f"--forms {form!r} is no form{hint}")
    return found


class _Forms:
    """Makes the forms of one package; those that others are made of are kept."""

    def __init__(self, package: Path, folder: Path, threads: int, progress: Progress) -> None:
        self._package, self._folder, self._threads = package, folder, threads
        self._progress = progress
        self._model = load_model(package, "cpu")
        states = (member.classifier.state_dict() for member in self._model.members)
        self._mb = 4 * sum(value.numel() for state in states for value in state.values()) / MB
        self.name = self._model.card.name

    def make(self, kind: Kind) -> tuple[Answer, float]:
        """Return what answers, and the size of its weights or file in MB."""
        if kind == "eager":
            return _predicts(self._model), self._mb
        if kind == "compiled":
            return _predicts(_compiled(self._model)), self._mb
        file = {"onnx": self._onnx, "int8": self._int8, "openvino": self._openvino}[kind]()
        form: Literal["openvino", "onnx"] = "openvino" if kind == "openvino" else "onnx"
        files = self._folder.glob(f"{file.stem}.*")
        size = sum(each.stat().st_size for each in files) / MB
        return open_form(form, file, self._threads), size

    def _onnx(self) -> Path:
        file = self._folder / "plain.onnx"
        if not file.exists():
            program = trace(ModelGraph(load_model(self._package, "cpu")))
            write_onnx(program, metadata_of(self._model.card, 0), file)
        return file

    def _int8(self) -> Path:
        file, count = self._folder / "int8.onnx", CALIBRATION_IMAGES
        write_int8(self._onnx(), file, _noise(count), count, self._progress)
        return file

    def _openvino(self) -> Path:
        if find_spec("openvino") is None:
            raise ConfigError("it needs openvino: pip install 'carray[openvino]'")
        file = self._folder / "vino.xml"
        write_openvino(self._onnx(), file)
        return file


def _predicts(model: Model) -> Answer:
    def answer(images: npt.NDArray[np.uint8]) -> Float32s:
        return model.predict(images)

    return answer


def _compiled(model: Model) -> Model:
    members = [
        replace(member, classifier=cast(Classifier, torch.compile(member.classifier)))
        for member in model.members
    ]
    return replace(model, members=tuple(members))


def _noise(count: int) -> Iterator[npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def _timed(kind: Kind, answer: Answer, batch: int, seconds: float, mb: float) -> Timing:
    images = np.stack(list(_noise(batch)))
    with quiet():
        took = call_seconds(lambda: answer(images), seconds)
    p50, p95 = (1000 * float(np.percentile(took, part)) for part in (50, 95))
    return Timing(kind, batch, p50, p95, batch * len(took) / sum(took), mb)
