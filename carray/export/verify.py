"""An export's answers beside the original's, photograph by photograph: the same, or refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from carray.errors import DataError, ExportError, counted
from carray.export.forms import Answer
from carray.export.photographs import Photographs
from carray.inference.predictor import Model
from carray.json_file import JsonResult
from carray.predictions.averaging import TINY
from carray.predictions.scores import log_loss, top1
from carray.typing import Float32s, Labels, Progress

GivenT = TypeVar("GivenT")


@dataclass(frozen=True)
class Tolerance:
    """How far an export may be from the original."""

    agreement: float = 0.995
    """Least share of photographs with the same likeliest class."""
    log_loss: float = 0.005
    """Most that the log-losses differ, either way."""


DEFAULT = Tolerance()


@dataclass(frozen=True)
class Judged(JsonResult):
    """How one form of a model answered."""

    form: str
    agreement: float
    """Share of the photographs with the original's likeliest class."""
    largest: float
    """Largest difference of any probability."""
    log_loss: float
    top1: float
    milliseconds: float
    """Median of a photograph, from its file to its probabilities, one at a time."""
    mb: float
    """The file's size, 10^6 bytes."""


@dataclass(frozen=True)
class Answered:
    """What was said of each photograph, and how long each took."""

    probabilities: Float32s
    """(photographs, classes)."""
    seconds: tuple[float, ...]


def ask_original(model: Model, photographs: Photographs, progress: Progress) -> Answered:
    """Return a package's own answers, as `carray predict` has them.

    Raises:
        DataError: a photograph is gone or can't be decoded.
    """

    def predict(given: tuple[object, object]) -> Float32s:
        path, box = given
        found = model.predict_files([path], boxes=[box])  # type: ignore[list-item]
        if found.unreadable:
            raise DataError(f"{path} can't be read ({found.unreadable[0]}): bring it back")
        return found.probabilities

    given = zip(photographs.paths, photographs.boxes, strict=True)
    return _timed(predict, given, len(photographs), "the original", progress)


def ask_form(
    answer: Answer, photographs: Photographs, side: int, form: str, progress: Progress
) -> Answered:
    """Return an exported form's answers to images read for `side`; raises DataError as `read`."""
    images, total = photographs.read(side), len(photographs)
    return _timed(lambda image: answer(image[None]), images, total, form, progress)


def _timed(
    ask: Callable[[GivenT], Float32s],
    given: Iterable[GivenT],
    total: int,
    what: str,
    progress: Progress,
) -> Answered:
    parts, seconds = [], []
    with progress(f"asking {what}", total) as advance:
        start = time.perf_counter()
        for each in given:
            parts.append(ask(each))
            seconds.append(time.perf_counter() - start)
            advance(1)
            start = time.perf_counter()
    return Answered(np.concatenate(parts), tuple(seconds))


def judge(form: str, answered: Answered, original: Answered, labels: Labels, mb: float) -> Judged:
    """Compare answers with the original's."""
    p, known = answered.probabilities, original.probabilities
    log_p = np.log(np.maximum(p, TINY))
    return Judged(
        form,
        float((p.argmax(1) == known.argmax(1)).mean()),
        float(np.abs(p - known).max()),
        log_loss(log_p, labels),
        top1(log_p, labels),
        1000 * float(np.median(answered.seconds)),
        mb,
    )


def check(judged: Judged, original: Judged, photographs: Photographs, bound: Tolerance) -> None:
    """Refuse a form that answers otherwise than the original.

    Raises:
        ExportError: it does; what differs is told.
    """
    apart = abs(judged.log_loss - original.log_loss)
    if judged.agreement >= bound.agreement and apart <= bound.log_loss:
        return
    other = round((1 - judged.agreement) * len(photographs))
    raise ExportError(
        f"the {judged.form} form isn't the original: another class is the likeliest on {other} of "
        f"{counted(len(photographs), f'{photographs.split} photograph')} (agreement "
        f"{judged.agreement:.4f}, at least {bound.agreement:g}), log-loss {judged.log_loss:.4f} "
        f"for {original.log_loss:.4f} (at most {bound.log_loss:g} apart), the largest difference "
        f"of a probability is {judged.largest:.4f}, top-1 {judged.top1:.4f} for "
        f"{original.top1:.4f}; nothing is written. Where that will do, --agreement and "
        "--tolerance allow it"
    )
