"""Predictions by make, model, generation, body and year: how often right, wrong in what, how sure.

A level's probability is the sum of its classes' own, so it needs no model of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from carray.data.label_parts import LabelParts
from carray.predictions.statistics import Interval, accuracy_interval
from carray.typing import Float32s, Labels

OTHERWISE = "otherwise"  # two classes whose names agree in every part, or one that wasn't read
UNSURE = "unsure"


@dataclass(frozen=True)
class LevelScore:
    """How often a model is right up to a level: at `model`, in make and model."""

    level: str
    accuracy: Interval
    groups: int
    """How many there are to choose among."""
    wrong: int
    """Images whose answer is right up to the level above, and wrong in this."""


def level_scores(
    parts: LabelParts, answers: Labels, labels: Labels
) -> tuple[tuple[LevelScore, ...], int]:
    """Return the score at each level that names tell, and how many images are wrong otherwise."""
    kinds = Counter(mistake_kinds(parts, answers, labels))
    scores = []
    for level in parts.levels:
        group_of, names = parts.groups(level)
        places = np.asarray(group_of)
        right = accuracy_interval(places[answers] == places[labels])
        scores.append(LevelScore(level, right, len(names), kinds[level]))
    return tuple(scores), kinds[OTHERWISE]


def mistake_kinds(parts: LabelParts, answers: Labels, labels: Labels) -> list[str]:
    """Return the level that each image's answer is wrong in, the coarsest; "" where it is right."""
    pairs = list(zip(labels.tolist(), answers.tolist(), strict=True))
    kinds = {pair: mistake_kind(parts, *pair) for pair in dict.fromkeys(pairs)}
    return [kinds[pair] for pair in pairs]


def mistake_kind(parts: LabelParts, true: int, answer: int) -> str:
    """Return the first level in which two classes differ; "" of a class and itself."""
    if true == answer:
        return ""
    if parts.parts[true] is None or parts.parts[answer] is None:
        return OTHERWISE
    for level in parts.levels:
        if parts.key(true, level) != parts.key(answer, level):
            return level
    return OTHERWISE


@dataclass(frozen=True)
class LevelAnswer:
    """What can be said of an image with some certainty."""

    text: str
    """As in `Audi TT, year unsure`."""
    level: str
    """Down to which it is sure; "" where it isn't of anything."""
    probability: float


@dataclass(frozen=True)
class LevelReader:
    """Answers down to the level at which a probability passes a threshold, or down to one level."""

    parts: LabelParts
    threshold: float = 0.0
    level: str | None = None
    """None: as deep as the threshold allows."""

    def answers(self, p_NC: Float32s) -> list[LevelAnswer]:
        """Return an answer an image, of probabilities (images, classes)."""
        sums = {level: self._sums(p_NC, level) for level in self._asked}
        rows = range(len(p_NC))
        return [self._answer({level: own[n] for level, own in sums.items()}) for n in rows]

    def likeliest(self, p_C: Float32s) -> list[LevelAnswer]:
        """Return the likeliest group at each level, the coarsest first, whatever the threshold."""
        sums = {level: self._sums(p_C[None], level)[0] for level in self._asked}
        places = {level: int(own.argmax()) for level, own in sums.items()}
        return [
            LevelAnswer(self._groups[level][1][place], level, float(sums[level][place]))
            for level, place in places.items()
        ]

    @property
    def _asked(self) -> tuple[str, ...]:
        levels = self.parts.levels
        return levels if self.level is None else levels[: levels.index(self.level) + 1]

    @cached_property
    def _groups(self) -> dict[str, tuple[list[int], list[str]]]:
        return {level: self.parts.groups(level) for level in self._asked}

    def _sums(self, p_NC: Float32s, level: str) -> Float32s:
        group_of, names = self._groups[level]
        return np.asarray(p_NC @ np.eye(len(names), dtype=np.float32)[group_of])

    def _answer(self, p_of: dict[str, Float32s]) -> LevelAnswer:
        """Return the deepest answer that is sure; with a level of its own, the one there."""
        likeliest = {level: int(p.argmax()) for level, p in p_of.items()}
        levels = self._asked if self.level is None else (self.level,)
        sure = [one for one in levels if p_of[one][likeliest[one]] >= self.threshold]
        if not sure:
            return LevelAnswer(UNSURE, "", float(p_of[levels[0]].max()))
        level = sure[-1]
        group = likeliest[level]
        name = self._groups[level][1][group]
        open_ = self._open_levels(level, group) if self.level is None else []
        text = f"{name}, {_listed(open_)} {UNSURE}" if open_ else name
        return LevelAnswer(text, level, float(p_of[level][group]))

    def _open_levels(self, level: str, group: int) -> list[str]:
        """Return the levels below in which the classes of a group differ."""
        places = [n for n, own in enumerate(self._groups[level][0]) if own == group]
        known = [own for n in places if (own := self.parts.parts[n]) is not None]
        below = self.parts.levels[self.parts.levels.index(level) + 1 :]
        return [each for each in below if len({own.get(each, "") for own in known}) > 1]


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
