"""What a model says beside its likeliest class: a set that holds the right one, and "unknown".

`reliability.json` stands in the package; `carray calibrate` writes it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from shlex import quote
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from carray.json_file import JsonFile
from carray.predictions.conformal import Method, sets_of
from carray.typing import Float32s

_logger = logging.getLogger(__name__)

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
    class_limits: tuple[float | None, ...] = ()
    """The same of each class, where some have images enough for their own; else ()."""
    false_alarm_rate: float
    """Share of known images that may be called unknown."""
    energy_limit: float | None
    """Above it an image is unknown; None where the images were too few: then none is."""
    energy_of: Literal["members", "mean logits"] = "members"
    """What the limit is of; `members`, their mean energy, in files of before 0.2."""
    train_counts: tuple[int, ...] = ()
    """Training images of each class, in the model's order; () in files of before 0.2."""
    measured: dict[str, Any] = Field(default_factory=dict)
    """What `carray calibrate` found: coverage, sizes, false alarms."""

    @classmethod
    def of_package(cls, package: Path) -> Self | None:
        """Return what stands in a package; None where it was never calibrated.

        A limit of what is no longer measured is left out, and that is logged.
        """
        file = package / FILE
        found = cls.read(file) if file.exists() else None
        if found is None or found.energy_of == "mean logits" or found.energy_limit is None:
            return found
        _logger.warning(
            f"{package.name} was calibrated with an energy of before, and calls nothing unknown: "
            f"carray calibrate {quote(package.name)}"
        )
        return found.model_copy(update={"energy_limit": None})

    def sets(self, p_NC: Float32s) -> npt.NDArray[np.bool_]:
        """Return which classes each image's set holds, (images, classes)."""
        limits = self.class_limits or (self.set_limit,) * p_NC.shape[1]
        known = [np.inf if limit is None else limit for limit in limits]
        return sets_of(p_NC, self.method, np.array(known))

    def unknown(self, energies: Float32s) -> npt.NDArray[np.bool_]:
        """Say which images are like nothing that the model was trained on, (images,)."""
        return energies > (float("inf") if self.energy_limit is None else self.energy_limit)
