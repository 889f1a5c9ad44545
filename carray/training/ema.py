"""Averaged weights: an exponential moving average that starts fast."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor

from carray.models.classifier import Classifier


class AveragedWeights:
    """The average of a classifier's weights and statistics, in a copy that can be evaluated.

    The decay rises with the steps, min(decay, (1 + t) / (10 + t)), so that a short trial's average
    forgets where it started, as TensorFlow's does.
    """

    def __init__(self, classifier: Classifier, decay: float) -> None:
        self.classifier = deepcopy(classifier).requires_grad_(False).eval()
        self.steps = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, classifier: Classifier) -> None:
        """Move the average towards `classifier`, after each optimizer step."""
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        averaged, current = self._tensors(self.classifier), self._tensors(classifier)
        floats = [name for name, value in averaged.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [averaged[name] for name in floats], [current[name] for name in floats], 1 - decay
        )
        for name in averaged.keys() - set(floats):
            averaged[name].copy_(current[name])

    @staticmethod
    def _tensors(classifier: Classifier) -> dict[str, Tensor]:
        return dict(classifier.state_dict())
