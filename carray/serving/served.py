"""`ServedModel`: a model by its name, in its newest version, with the queue before it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import PIL.Image

from carray.data.label_parts import AUTO, read_label_parts
from carray.data.pixels.store import store_side
from carray.inference.heat import heat_maps, overlaid
from carray.inference.inputs import find_package
from carray.inference.level_answers import SURE
from carray.inference.neighbours import Neighbour, Neighbours, looker, unit_features
from carray.inference.predictor import Geometry, Model, Square, load_model
from carray.inference.reliability import Reliability
from carray.inference.versions import split_version
from carray.predictions.levels import LevelReader
from carray.runs_folder import RunsFolder
from carray.serving.batcher import Batcher
from carray.serving.limits import Limits, Refused
from carray.typing import Float32s

Squares = dict[Geometry, Square]
OnBatch = Callable[[int, float], None]
HEAT_SIDE = 448  # pixels of the picture that shows where a model looked


@dataclass(frozen=True, eq=False)
class Asked:
    """One image, and what is asked of it beside its classes."""

    squares: Squares
    heat: bool = False
    """Where the model looked."""
    neighbours: int = 0
    """How many of the nearest training images."""


@dataclass(frozen=True, eq=False)
class Said:
    """What a model says of one image."""

    probabilities: Float32s
    """(classes,)."""
    energy: float
    heat: bytes | None = None
    """A JPEG of what the model saw, coloured where it speaks for the likeliest class."""
    neighbours: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, eq=False)
class Version:
    """One version of a model, loaded, with its queue."""

    folder: Path
    model: Model
    reliability: Reliability | None
    """None where the package was never calibrated."""
    neighbours: Neighbours | None
    """None where the package keeps no pictures of training images."""
    levels: LevelReader | None
    """None where class names tell no make, model or year."""
    batcher: Batcher[Asked, Said]

    @property
    def is_calibrated(self) -> bool:
        """Whether a temperature was fitted to photographs that trained nothing."""
        return self.reliability is not None or self.model.card.temperature != 1

    def reader(self, level: str | None, threshold: float | None) -> LevelReader | None:
        """Return what answers at a level, `auto` for the deepest that is sure; None for None.

        Raises:
            Refused: 422 where class names don't tell the level.
        """
        if level is None:
            return None
        known = self.levels.parts.levels if self.levels else ()
        if self.levels is None or level not in (AUTO, *known):
            raise Refused(
                422,
                f"level={level} isn't told by the class names of {self.name!r}: "
                + (
                    f"ask for {AUTO} or {', '.join(known)}"
                    if known
                    else "leave it out, or have it served with --label-parts"
                ),
            )
        if level == AUTO:
            return self.levels if threshold is None else replace(self.levels, threshold=threshold)
        return LevelReader(self.levels.parts, threshold or 0.0, level)

    @property
    def name(self) -> str:
        """The model's name, without its version."""
        return split_version(self.folder.name)[0]

    @property
    def number(self) -> int:
        """Which version it is, counted from 1."""
        return split_version(self.folder.name)[1] or 1


class ServedModel:
    """A model that is asked by name; a newer version of the name takes over between requests."""

    def __init__(
        self,
        runs: RunsFolder,
        asked: str,
        limits: Limits,
        device: str | None,
        on_batch: OnBatch,
        label_parts: str = AUTO,
    ) -> None:
        self._runs, self._asked, self._limits = runs, asked, limits
        self._device, self._on_batch, self._label_parts = device, on_batch, label_parts
        self._loading = threading.Lock()
        self.current = self._load(find_package(runs, asked))

    def refresh(self) -> bool:
        """Load a newer version of a bare name where there is one; say whether there was.

        The one before answers what it has taken, then ends.
        """
        with self._loading:
            before = self.current
            is_bare = "/" not in self._asked and "@" not in self._asked
            newest = find_package(self._runs, self._asked) if is_bare else before.folder
            if newest == before.folder:
                return False
            self.current = self._load(newest)
            before.batcher.close()
            return True

    def close(self) -> None:
        """Answer what waits, then take no more."""
        self.current.batcher.close()
        self.current.batcher.join()

    def _load(self, folder: Path) -> Version:
        model, limits = load_model(folder, self._device), self._limits
        if model.device.type == "cpu":
            limits = replace(limits, batch=min(limits.batch, limits.batch_on_cpu))
        neighbours = Neighbours.of_package(folder)
        parts = read_label_parts(model.classes, self._label_parts)

        def answer(images: Sequence[Asked]) -> Sequence[Said]:
            log_p, energies = model.answer_squares([image.squares for image in images])
            said = zip(images, np.exp(log_p), energies.tolist(), strict=True)
            return [_said(model, neighbours, *each) for each in said]

        answer([Asked(_blank(model))])  # the first pass is slow: nobody should wait for it
        return Version(
            folder,
            model,
            Reliability.of_package(folder),
            neighbours,
            LevelReader(parts, SURE) if parts and parts.levels else None,
            Batcher(answer, limits, self._on_batch),
        )


def _said(
    model: Model, neighbours: Neighbours | None, asked: Asked, p_C: Float32s, energy: float
) -> Said:
    nearest: list[Neighbour] = []
    if neighbours and asked.neighbours:
        member = looker(model)
        feature = unit_features(member, asked.squares[member.geometry][None])[0]
        nearest = neighbours.nearest(feature, asked.neighbours)
    heat = _heat(model, asked.squares, int(p_C.argmax())) if asked.heat else None
    return Said(p_C, energy, heat, tuple(nearest))


def _heat(model: Model, squares: Squares, target: int) -> bytes:
    (strength,) = heat_maps(model, [squares], np.array([target]))
    seen = PIL.Image.fromarray(squares[looker(model).geometry])
    large = np.asarray(seen.resize((HEAT_SIDE, HEAT_SIDE), PIL.Image.Resampling.BICUBIC))
    kept = io.BytesIO()
    PIL.Image.fromarray(overlaid(large, strength)).save(kept, "JPEG", quality=85)
    return kept.getvalue()


def _blank(model: Model) -> Squares:
    sides = {member.geometry: store_side(member.geometry[0]) for member in model.members}
    return {geometry: np.zeros((side, side, 3), np.uint8) for geometry, side in sides.items()}
