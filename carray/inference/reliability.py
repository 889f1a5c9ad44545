"""What a model says beside its likeliest class: a set that holds the right one, and "unknown".

`reliability.json` stands in the package; `carray calibrate` writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from carray.json_file import JsonFile
from carray.predictions.conformal import Method, sets_of
from carray.typing import Float32s

FILE = "reliability.json"


class Reliability(JsonFile):
    """Thresholds, and what they were chosen on."""

    broken: ClassVar[str] = "{path} can't be read ({why}): `carray calibrate` writes it anew"

    version: Literal[1] = 1
    split: str
    """The photographs that the thresholds were chosen on."""
    images: int
    coverage: float
    """How often a set should hold the right class."""
    method: Method
    set_limit: float | None
    """How odd a class of a set may be; None where the images were too few: then all are in."""
    false_alarm_rate: float
    """Share of known images that may be called unknown."""
    energy_limit: float | None
    """Above it an image is unknown; None where the images were too few: then none is."""
    train_counts: tuple[int, ...] = ()
    """Training images of each class, in the model's order; () in files of before 0.2."""
    measured: dict[str, Any] = Field(default_factory=dict)
    """What `carray calibrate` found: coverage, sizes, false alarms."""

    @classmethod
    def of_package(cls, package: Path) -> Self | None:
        """Return what stands in a package; None where it was never calibrated."""
        file = package / FILE
        return cls.read(file) if file.exists() else None

    def sets(self, p_NC: Float32s) -> npt.NDArray[np.bool_]:
        """Return which classes each image's set holds, (images, classes)."""
        limit = float("inf") if self.set_limit is None else self.set_limit
        return sets_of(p_NC, self.method, limit)

    def unknown(self, energies: Float32s) -> npt.NDArray[np.bool_]:
        """Say which images are like nothing that the model was trained on, (images,)."""
        return energies > (float("inf") if self.energy_limit is None else self.energy_limit)
