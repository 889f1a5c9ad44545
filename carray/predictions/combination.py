"""`Combination`: how the predictions of a model's members become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from carray.predictions.averaging import WeightedAverage
from carray.predictions.logits import log_softmax
from carray.predictions.views import NONE, Tta
from carray.typing import Float32s


@dataclass(frozen=True)
class Combination:
    """A weighted average of members, the rule that it comes from, and the views of every image.

    The members are numbered by their place in the model.
    """

    average: WeightedAverage
    rule: str
    """As in `soft vote`."""
    tta: Tta | None = None
    """None where every image is seen once, whole."""

    @property
    def views(self) -> Tta:
        """The views that every image is seen in."""
        return self.tta or NONE

    def widened(self, classes: int) -> Combination:
        """Return it for a model of further classes, after those of before."""
        stack = self.average.stack
        stack = stack and stack.widened(classes)
        return replace(self, average=replace(self.average, stack=stack))

    def log_p(self, log_ps: Sequence[Float32s]) -> Float32s:
        """Return the model's log-probabilities, (images, classes), of those of each member."""
        merged = self.average.merged(log_ps)
        return log_softmax(merged / np.float32(self.average.temperature))


SINGLE_TRIAL = Combination(WeightedAverage((0,), (1.0,)), "single trial")
