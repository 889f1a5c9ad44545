"""Messages about one epoch of a trial; imports no torch, so that a Tune trial starts fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from carray.config import Compute, Hardware, Part, TrialConfig


class EpochOrder(Part):
    """One epoch of one trial: all that a lane needs to know."""

    trial: str
    """`STUDY/0007`: the identity of the trial's state on a lane."""
    folder: str
    """The trial's folder, a path that every rank sees."""
    data: str
    """The prepared data set's folder."""
    config: TrialConfig
    epoch: int
    """1-based."""
    compute: Compute | None = None
    """How to compute, as another run of the trial did; None decides anew."""
    weights: str | None = None
    """The folder of pretrained weights, looked in before the hub; None: `$CARRAY_WEIGHTS`."""
    teacher: str | None = None
    """The folder of the teacher's package here; None: the one that `config` names."""
    continues: str | None = None
    """The folder of a trial whose checkpoint this one begins with, if it has none of its own."""
    keeps_checkpoint: bool = False
    """Whether the checkpoint stays once the trial is finished, for another to begin with."""


RECORD_FACTS = ("parameters", "initialisation", "compute", "hardware")


@dataclass(frozen=True)
class EpochOutcome:
    """What an epoch brought, reduced over ranks; the same on each of them."""

    metrics: dict[str, float]
    is_best: bool
    stop: str
    """Why the trial ends now though epochs are left; "" where it doesn't."""
    parameters: int
    initialisation: str
    """What the weights started from: a name and a short hash, or `random:SEED`."""
    compute: Compute | None
    """How the trial's steps are computed."""
    hardware: Hardware | None = None
    """What computes them."""
    ending: str = "complete"
    """The state of a trial that ends with this epoch: complete or collapsed."""

    def facts(self) -> dict[str, Any]:
        """Return what the first epoch brings to light, by the names of `TrialRecord`'s fields."""
        return {name: getattr(self, name) for name in RECORD_FACTS}
