"""`ServedModel`: a model by its name, in its newest version, with the queue before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from carray.data.pixels.store import store_side
from carray.inference.inputs import find_package
from carray.inference.predictor import Geometry, Model, Square, load_model
from carray.inference.reliability import Reliability
from carray.inference.versions import split_version
from carray.runs_folder import RunsFolder
from carray.serving.batcher import Batcher
from carray.serving.limits import Limits
from carray.typing import Float32s

Image = dict[Geometry, Square]
Said = tuple[Float32s, float]  # probabilities (classes,), and the energy
OnBatch = Callable[[int, float], None]


@dataclass(frozen=True, eq=False)
class Version:
    """One version of a model, loaded, with its queue."""

    folder: Path
    model: Model
    reliability: Reliability | None
    """None where the package was never calibrated."""
    batcher: Batcher[Image, Said]

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
        self, runs: RunsFolder, asked: str, limits: Limits, device: str | None, on_batch: OnBatch
    ) -> None:
        self._runs, self._asked, self._limits = runs, asked, limits
        self._device, self._on_batch = device, on_batch
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
        model = load_model(folder, self._device)

        def answer(images: Sequence[Image]) -> Sequence[Said]:
            log_p, energies = model.answer_squares(images)
            return list(zip(np.exp(log_p), energies.tolist(), strict=True))

        answer([_blank(model)])  # the first pass is slow: nobody should wait for it
        batcher = Batcher(answer, self._limits, self._on_batch)
        return Version(folder, model, Reliability.of_package(folder), batcher)


def _blank(model: Model) -> Image:
    sides = {member.geometry: store_side(member.geometry[0]) for member in model.members}
    return {geometry: np.zeros((side, side, 3), np.uint8) for geometry, side in sides.items()}
