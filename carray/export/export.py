"""`export_model`: a model package as one file, its answers compared with the original's first."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carray.data.manifest import Manifest
from carray.data.pixels.store import store_side
from carray.disk import disk_error
from carray.errors import ConfigError, DiskError, did_you_mean
from carray.export.example import write_example
from carray.export.forms import (
    OPSET,
    SUFFIXES,
    Form,
    metadata_of,
    open_form,
    trace,
    write_onnx,
    write_openvino,
    write_torch_export,
)
from carray.export.graph import ModelGraph
from carray.export.hf_space import MODEL, write_space
from carray.export.int8 import CALIBRATION_IMAGES, Quantised, write_int8
from carray.export.photographs import Photographs, held_photographs, some_training
from carray.export.verify import (
    DEFAULT,
    Answered,
    Judged,
    Tolerance,
    ask_form,
    ask_original,
    check,
    judge,
)
from carray.extras import check_extra
from carray.files import check_target
from carray.inference.card import Card
from carray.inference.dataset_predictions import find_data
from carray.inference.inputs import find_package, runs_of
from carray.inference.predictor import Model, load_model
from carray.json_file import JsonResult
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.typing import Progress

MB = 10**6
STRAY = 3.0
"""Logits may stray by so much times the share of photographs that may change their likeliest class:
straying by s changed about s / 5 of them on flowers, with MobileNets."""

_logger = logging.getLogger(__name__)
ONNX = ("onnx", "onnxscript", "onnxruntime")
NEEDS: dict[Form, tuple[str, ...]] = {
    "onnx": ONNX,
    "torch-export": (),
    "openvino": (*ONNX, "openvino"),
    "hf-space": ONNX,
}


@dataclass(frozen=True)
class Export(JsonResult):
    """What `export_model` wrote, and how it answers."""

    model: str
    to: Form
    files: tuple[Path, ...]
    """The model first."""
    split: str
    photographs: int
    """Of that split, which it was judged on."""
    opset: int | None
    forms: tuple[Judged, ...]
    """The original, then each form that was made."""
    notes: tuple[str, ...]
    seconds: float


def export_model(
    model: str,
    out: str | os.PathLike[str],
    *,
    to: str = "onnx",
    int8: bool = False,
    tolerance: Tolerance = DEFAULT,
    data: str | Path | None = None,
    runs: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Export:
    """Write a model package as one graph, from decoded images to calibrated probabilities.

    Args:
        model: a package's name or folder, or a trial (`STUDY/NUMBER`).
        out: the file to write; of `hf-space` a new folder.
        to: `onnx`, `torch-export`, `openvino` or `hf-space`.
        int8: 8-bit weights, and activations where that keeps the answers, calibrated on training
            photographs; the layers that cost most stay in float32.
        tolerance: how far its answers on the blend photographs may be from the original's.
        data: the model's data set, where it isn't where its study had it.
        runs: the runs folder.
        progress: shows how far the photographs are.

    Raises:
        ConfigError: `to` or `out` is none that can be written, or a library is missing.
        RecordError: there is no such model.
        DataError: its photographs are gone.
        ExportError: the answers differ; nothing is left at `out`.
    """
    start, target = time.monotonic(), Path(out)
    form = _checked(to, target, int8)
    package = find_package(RunsFolder.at(runs), model)
    card = Card.read(package / "card.json")
    manifest = find_data(runs_of(package, runs), card, data)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside_folder = tempfile.TemporaryDirectory(prefix=".carray-", dir=target.parent)
    with _told_if_full(target), aside_folder as folder:
        judges = _Judges(held_photographs(manifest), tolerance, progress)
        aside = Path(folder) / target.name
        _write(form, load_model(package, "cpu"), aside, manifest if int8 else None, judges)
        files = _published(aside, target, judges.side)
    return Export(
        *(card.name, form, files, judges.held.split, len(judges.held)),
        None if form == "torch-export" else OPSET,
        tuple(judges.rows),
        (*_notes(card), *judges.about_int8()),
        time.monotonic() - start,
    )


@contextmanager
def _told_if_full(target: Path) -> Iterator[None]:
    """Say of a write to a full disk, which names no file, where `target` was to be."""
    try:
        yield
    except Exception as error:
        if full := disk_error(error, target.parent):
            raise DiskError(f"{target} can't be written: {full}") from error
        raise


def _checked(to: str, out: Path, int8: bool) -> Form:
    """Return the form that is asked for, once it is clear that it can be written."""
    form: Form | None = next((each for each in SUFFIXES if each == to), None)
    if form is None:
        hint = did_you_mean(to, SUFFIXES) or f": it is one of {', '.join(SUFFIXES)}"
        raise ConfigError(f"--to {to!r} is no form of a model{hint}")
    if int8 and form == "torch-export":
        raise ConfigError("--int8 needs --to onnx or openvino: drop it, or choose one of them")
    if form == "hf-space":
        _check_new_folder(out)
    elif out.suffix != SUFFIXES[form]:
        raise ConfigError(f"--out {out} must end in {SUFFIXES[form]} for --to {form}")
    else:
        check_target(out)
    check_extra(NEEDS[form], "openvino" if form == "openvino" else "export")
    return form


def _check_new_folder(out: Path) -> None:
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ConfigError(f"--out {out} is there already: name a new folder for --to hf-space")


class _Judges:
    """Compare each form that is made with the original, and refuse one that differs."""

    def __init__(self, held: Photographs, bound: Tolerance, progress: Progress) -> None:
        self.held, self.bound, self.progress = held, bound, progress
        self.rows: list[Judged] = []
        self.side = 0
        self.quantised: Quantised | None = None
        self._original: Answered | None = None

    def hear(self, model: Model) -> None:
        """Keep the original's answers; it is a row of its own."""
        self.side = max(store_side(size) for size, _ in (m.geometry for m in model.members))
        self._original = ask_original(model, self.held, self.progress)
        parameters = sum(
            p.numel() for member in model.members for p in member.classifier.state_dict().values()
        )
        self._add("original", self._original, 4 * parameters / MB)

    def judge(self, name: str, form: Form, *files: Path) -> None:
        """Compare a form; raises ExportError where it differs."""
        answered = ask_form(open_form(form, files[0]), self.held, self.side, name, self.progress)
        self._add(name, answered, sum(file.stat().st_size for file in files) / MB)
        check(self.rows[-1], self.rows[0], self.held, self.bound)

    def about_int8(self) -> tuple[str, ...]:
        """Return what is in 8 bits, and what that saves."""
        if not (done := self.quantised):
            return ()
        exact, small = self.rows[1:3]
        what = "weights and arithmetic" if done.arithmetic else "weights alone"
        return (
            f"int8: {what}, in float32 {done.in_float} of {done.layers} layers; "
            f"{small.mb:.1f} for {exact.mb:.1f} MB, "
            f"{small.milliseconds:.1f} for {exact.milliseconds:.1f} ms",
        )

    def _add(self, name: str, answered: Answered, mb: float) -> None:
        assert self._original is not None
        self.rows.append(judge(name, answered, self._original, self.held.labels, mb))


def _write(
    form: Form, model: Model, file: Path, quantised_on: Manifest | None, judges: _Judges
) -> None:
    """Write `file`, in steps that are judged one by one."""
    judges.hear(model)
    _logger.info("writing the graph: a minute for large models")
    program = trace(ModelGraph(model))
    about = metadata_of(model.card, judges.side)
    if form == "torch-export":
        write_torch_export(program, about, file)
        judges.judge(form, form, file)
        return
    plain = file.with_name("float32.onnx")
    write_onnx(program, about, plain)
    judges.judge("onnx", "onnx", plain)
    if quantised_on:
        training = some_training(quantised_on, CALIBRATION_IMAGES)
        plain, source = file.with_name("int8.onnx"), plain
        images = training.read(judges.side)
        stray = STRAY * (1 - judges.bound.agreement)
        judges.quantised = write_int8(source, plain, images, len(training), judges.progress, stray)
        judges.judge("onnx, int8", "onnx", plain)
    if form == "onnx":
        plain.replace(file)
        return
    if form == "hf-space":
        file.mkdir()
        plain.replace(file / MODEL)
        write_space(file, model.card, judges.rows, judges.held.split, len(judges.held))
        return
    write_openvino(plain, file)
    name = "openvino, int8" if quantised_on else "openvino"
    judges.judge(name, form, file, file.with_suffix(".bin"))


def _published(aside: Path, target: Path, side: int) -> tuple[Path, ...]:
    """Move what has been judged to where it was asked for; return the files."""
    weights = aside.with_suffix(".bin")
    if weights.exists():
        weights.replace(target.with_suffix(".bin"))
    aside.replace(target)
    if target.is_dir():
        return tuple(sorted(target.iterdir()))
    if target.suffix == ".onnx":
        return target, write_example(target, side)
    return (target, target.with_suffix(".bin")) if target.suffix == ".xml" else (target,)


def _notes(card: Card) -> tuple[str, ...]:
    if card.crop != "box":
        return ()
    grown = f", grown by {card.margin:g} of its sides" if card.margin else ""
    return (f"it was trained on images cut to their boxes{grown}: cut images before you ask it",)
