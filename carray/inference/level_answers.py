"""Answers no deeper than a model is sure: `Audi TT, year unsure`, by calibrated probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carray.data.label_parts import AUTO, LEVELS, read_label_parts
from carray.errors import CarrayError, ConfigError, counted
from carray.inference.card import Card
from carray.inference.held_predictions import find_held_model
from carray.predictions.labels import held_labels
from carray.predictions.levels import LevelAnswer, LevelReader
from carray.predictions.logits import log_softmax
from carray.predictions.scores import FEWEST_IMAGES, Labelled, fitted_temperature
from carray.runs_folder import RunsFolder
from carray.typing import Float32s

if TYPE_CHECKING:
    from carray.inference.inputs import ImageList
    from carray.inference.predictor import Predictions

TINY = np.finfo(np.float32).tiny
SURE = 0.8
JUDGES = ("blend", "val")  # that a temperature is fitted to

Row = dict[str, str]


@dataclass(frozen=True)
class LevelRequest:
    """How deep answers should go."""

    level: str
    """`auto`, or one of the levels that class names tell."""
    threshold: float | None = None
    """From which probability on a level is sure; None: 0.8, and any of a level that is named."""
    label_parts: str = AUTO

    def __post_init__(self) -> None:
        if self.level not in (AUTO, *LEVELS):
            raise ConfigError(f"--by {self.level!r} must be {AUTO} or one of {', '.join(LEVELS)}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"--threshold {self.threshold:g} must be a probability, 0 to 1")

    def reader(self, classes: Sequence[str]) -> LevelReader:
        """Return what answers, for a model's classes.

        Raises:
            ConfigError: class names don't tell the level, or nothing at all.
        """
        parts = read_label_parts(classes, self.label_parts)
        known = parts.levels if parts else ()
        if parts is None or self.level not in (AUTO, *known):
            what = f"--by {self.level}"
            raise ConfigError(
                f"{what} needs class names that tell it, and {classes[0]!r} and the others tell "
                f"{', '.join(known) or 'no make, model or year'}: say with --label-parts how they "
                "are read"
            )
        if self.level == AUTO:
            return LevelReader(parts, SURE if self.threshold is None else self.threshold)
        return LevelReader(parts, self.threshold or 0.0, self.level)


def temperature_of(runs: RunsFolder, package: Path) -> tuple[float, str]:
    """Return what a model's logits are divided by so that confidences hold, and where it is from.

    It is fitted to logits that the model's trials left on images they weren't trained on; where
    there are none, the model's own stays, and that is said.
    """
    seen = _stored(runs, package)
    images = sum(len(labels) for _, labels in seen.values())
    if images < FEWEST_IMAGES:
        own = Card.read(package / "card.json").temperature
        known = f"its own temperature is {own:g}" if own != 1 else "they aren't calibrated"
        return 1.0, f"probabilities are the model's own: {known}"
    (log_p, labels), *others = seen.values()
    found = fitted_temperature(log_p, labels, *others)
    of = f"{counted(images, 'image')} of {' and '.join(seen)}"
    return found, f"probabilities are calibrated: temperature {found:g}, of {of}"


def _stored(runs: RunsFolder, package: Path) -> dict[str, Labelled]:
    """Return what a model's trials left of each of `JUDGES` that they left something of."""
    seen: dict[str, Labelled] = {}
    with suppress(CarrayError):
        held = find_held_model(runs, str(package))
        known = held_labels(held.study)
        for split in JUDGES:
            labels = known.of(split)
            with suppress(CarrayError):
                log_p = held.stored(split, labels) if len(labels) else None
                seen |= {} if log_p is None else {split: (log_p, labels)}
    return seen


def level_answers(
    reader: LevelReader, probabilities: Float32s, temperature: float
) -> list[LevelAnswer]:
    """Return an answer an image, of probabilities (images, classes) and a temperature."""
    log_p = np.log(np.maximum(probabilities, TINY)) / np.float32(temperature)
    return reader.answers(np.exp(log_softmax(log_p)))


def level_rows(
    found: ImageList,
    predicted: Predictions,
    classes: Sequence[str],
    answers: Sequence[LevelAnswer],
) -> list[Row]:
    """Return one row an image, in order: the answer, then the likeliest class, or why none."""
    known = dict(
        zip(predicted.places, zip(answers, predicted.probabilities, strict=True), strict=True)
    )
    empty = dict.fromkeys(("answer", "level", "probability", "class_1"), "")
    rows = []
    for place, name in enumerate(found.names):
        row = {"image": name, **empty, "error": predicted.unreadable.get(place, "")}
        if place in known:
            answer, p = known[place]
            row |= {"answer": answer.text, "level": answer.level, "class_1": classes[p.argmax()]}
            row["probability"] = f"{answer.probability:.6f}"
        rows.append(row)
    return rows
