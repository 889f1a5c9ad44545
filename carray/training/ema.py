"""Averaged weights: timm's exponential moving average, with a decay that starts low."""

from __future__ import annotations

from timm.utils import ModelEmaV3

from carray.models.classifier import Classifier


class AveragedWeights:
    """The average of a classifier's weights and statistics, in a copy that can be evaluated.

    The decay rises with the steps, min(decay, (1 + t) / (10 + t)), so that a short trial's average
    forgets where it started, as TensorFlow's does: timm's own ramp of power 1 and gamma 9.
    """

    def __init__(self, classifier: Classifier, decay: float) -> None:
        self._average = ModelEmaV3(
            classifier, decay, use_warmup=True, warmup_gamma=9.0, warmup_power=1.0
        )
        self.classifier: Classifier = self._average.module.requires_grad_(False)
        self.steps = 0

    def update(self, classifier: Classifier) -> None:
        """Move the average towards `classifier`, after each optimizer step."""
        self._average.update(classifier, self.steps + 2)  # timm's ramp is 0 in its first two steps
        self.steps += 1
