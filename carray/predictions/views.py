"""Sets of test-time views, and how their predictions are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from carray.data.pixels.augmentation import WHOLE, View
from carray.errors import ConfigError, did_you_mean
from carray.predictions.averaging import AverageOf, average_log_p
from carray.typing import Float32s

CROP = 7 / 8  # of the side, as 224 of 256
SCALES = {
    "three_scales": (0.85, 1.0, 1.15),
    "five_scales": (0.75, 0.85, 1.0, 1.15, 1.3),
}
CHANGED = {  # beside the whole image as it is
    "rotation": (View(rotate=-5.0), View(rotate=5.0)),
    "colour": (
        View(brightness=0.8),
        View(brightness=1.25),
        View(contrast=0.8),
        View(contrast=1.25),
    ),
    "blur": (View(blur=1.0),),
    "perspective": (View(tilt=-0.1), View(tilt=0.1)),
}
AUTO = ("flip", "five_crop", "ten_crop", "three_scales", "five_scales", "random:8", *CHANGED)
NAMES = ("none", *(name for name in AUTO if ":" not in name), "random:N", "random:N:AREA")
RANDOM_AREA = 0.5  # smallest area of a random view, as a share of the image's
MOST_VIEWS = 64


@dataclass(frozen=True)
class Tta:
    """A set of views, and whether their probabilities or their logits are averaged."""

    name: str
    space: AverageOf
    views: tuple[View, ...]

    @property
    def label(self) -> str:
        """As tables say it."""
        mean = "soft" if self.space == "probability" else "logit"
        return f"{self.name}, {mean} mean"

    def merged(self, log_ps: Sequence[Float32s]) -> Float32s:
        """Return one answer of what was said of each view, log-probabilities (images, classes)."""
        return average_log_p(log_ps, (1.0 / len(log_ps),) * len(log_ps), self.space)


NONE = Tta("none", "probability", (WHOLE,))


def parse_tta_sets(names: str | Sequence[str]) -> tuple[Tta, ...]:
    """Return the sets of `names`, each by soft and by logit mean; `auto` stands for `AUTO`.

    Raises:
        ConfigError: a name is unknown, or a set has no view or too many.
    """
    listed = names.split(",") if isinstance(names, str) else names
    words = [word.strip() for word in listed if word.strip()]
    words = [own for word in words for own in (AUTO if word == "auto" else (word,))]
    if not words:
        raise ConfigError(f"--tta names no set of views: auto, or of {', '.join(NAMES)}")
    means: tuple[AverageOf, ...] = ("probability", "logit")
    return tuple(
        Tta(word, mean, parse_views(word))
        for word in dict.fromkeys(words)
        if word != "none"
        for mean in means
    )


def parse_views(name: str) -> tuple[View, ...]:
    """Return the views of a set.

    `five_crop` are four corners and the middle at 7/8 of the side; `ten_crop` those and their
    mirror images; the scales see less or more than the image. `rotation` turns it by 5 degrees
    either way, `colour` has brightness and contrast lower and higher, `blur` a sigma of a pixel,
    `perspective` a tenth nearer on either side. `random:N` are N boxes of at least `RANDOM_AREA`
    of the image, `random:N:AREA` of at least that share: always the same ones.

    Raises:
        ConfigError: the name is unknown, or its numbers are out of range.
    """
    if name == "none":
        return (WHOLE,)
    if name == "flip":
        return (WHOLE, View(flip=True))
    if name in ("five_crop", "ten_crop"):
        five = _five_crops()
        mirrored = (replace(view, flip=True) for view in five if name == "ten_crop")
        return (*five, *mirrored)
    if name in SCALES:
        return tuple(_centred(scale) for scale in SCALES[name])
    if name in CHANGED:
        return (WHOLE, *CHANGED[name])
    if name.startswith("random"):
        return _random_views(name)
    raise ConfigError(
        f"unknown views {name!r}{did_you_mean(name, NAMES)}; auto, or of {', '.join(NAMES)}"
    )


def _centred(scale: float) -> View:
    start = (1 - scale) / 2
    return View(start, start, start + scale, start + scale)


def _five_crops() -> tuple[View, ...]:
    far = 1 - CROP
    corners = ((0.0, 0.0), (far, 0.0), (0.0, far), (far, far))
    return (_centred(CROP), *(View(x, y, x + CROP, y + CROP) for x, y in corners))


def _random_views(name: str) -> tuple[View, ...]:
    """Draw boxes as training's crops are drawn: area uniform, aspect within 3/4 to 4/3."""
    count, least = _random_numbers(name)
    rng = np.random.default_rng(0)
    views = []
    for number in range(count):
        area = rng.uniform(least, 1.0)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        width, height = (min(1.0, float(np.sqrt(area * a))) for a in (aspect, 1 / aspect))
        x, y = float(rng.uniform(0, 1 - width)), float(rng.uniform(0, 1 - height))
        views.append(View(x, y, x + width, y + height, flip=number % 2 == 1))
    return tuple(views)


def _random_numbers(name: str) -> tuple[int, float]:
    word, *numbers = name.split(":")
    try:
        count, least = int(numbers[0]), float(numbers[1]) if len(numbers) > 1 else RANDOM_AREA
    except (IndexError, ValueError):
        count, least = 0, 0.0
    if word != "random" or len(numbers) > 2 or not (1 <= count <= MOST_VIEWS and 0 < least <= 1):
        raise ConfigError(
            f"views {name!r} must be random:N with N from 1 to {MOST_VIEWS}, or random:N:AREA with "
            "the smallest view's share of the area in (0, 1], as in random:8:0.5"
        )
    return count, least
