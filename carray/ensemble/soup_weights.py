"""Averages of trials' weights, in one classifier, and what they say of held images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from carray.data.manifest import Manifest
from carray.data.pixels.augmentation import WHOLE
from carray.ensemble.tta_models import TrialModel
from carray.inference.package import weights_of
from carray.models.classifier import save_classifier
from carray.models.weights import read_weights
from carray.predictions.candidates import Candidate
from carray.training.batch_norm import MEASURED_MOST, measure_batch_norms, named_norms
from carray.typing import Float32s, Progress

Shares = Mapping[int, float]
"""What part of the average each trial is, by its place; they add up to one."""


@dataclass(frozen=True, eq=False)
class WeightAverager:
    """The first trial's classifier, which takes averages of the weights of all."""

    model: TrialModel
    files: tuple[Path, ...]
    manifest: Manifest

    @classmethod
    def of(
        cls, trials: Sequence[Candidate], manifest: Manifest, progress: Progress
    ) -> WeightAverager:
        """Load the first trial; the others' weights are read when they are averaged.

        Raises:
            RecordError: a trial's weights are gone.
        """
        files = tuple(weights_of(trial.folder, trial.record) for trial in trials)
        return cls(TrialModel.load(trials[0].folder, manifest, progress), files, manifest)

    def take(self, shares: Shares) -> None:
        """Give the classifier the average; its batch norms are measured anew on training images.

        Statistics of single trials, or their mean, aren't those of averaged weights. The images
        come in no order, since a batch of few classes has too little variance.
        """
        classifier = self.model.member.classifier
        states = {place: dict(read_weights(self.files[place])) for place in shares}
        classifier.load_state_dict(average_states(states, shares))
        if len(shares) > 1 and (norms := [norm for _, norm in named_norms(classifier)]):
            train = np.random.default_rng(0).permutation(self.manifest.rows("train"))
            plan = self.model.member.plan(self.model.pixels[train[:MEASURED_MOST]])
            measure_batch_norms(classifier, norms, plan, self.model.member.numerics, 1)

    def logits(self, split: str) -> Float32s:
        """Return what the classifier says of a held split, (images, classes)."""
        return self.model.logits(self.manifest.rows(split), WHOLE, lambda count: None)

    def save(self, file: Path) -> None:
        """Write the classifier's weights as a trial's."""
        member = self.model.member
        save_classifier(member.classifier.state_dict(), file, member.card.input)


def average_states(states: Mapping[int, Mapping[str, Tensor]], shares: Shares) -> dict[str, Tensor]:
    """Return the average of weights by name; what is counted is the first one's."""
    first = next(iter(states.values()))
    averaged = {}
    for name, value in first.items():
        if value.is_floating_point():
            parts = (share * states[place][name].float() for place, share in shares.items())
            averaged[name] = torch.stack(list(parts)).sum(dim=0).to(value.dtype)
        else:
            averaged[name] = value
    return averaged
