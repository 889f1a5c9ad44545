"""Trials' classifiers, loaded, and the pixels that they look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from carray.data.manifest import Manifest
from carray.data.pixels.augmentation import View
from carray.data.pixels.store import open_store
from carray.inference.card import MemberCard
from carray.inference.package import member_input, weights_of
from carray.inference.predictor import BATCH_IMAGES, Member, Square, load_member
from carray.records import TrialFolder
from carray.training.train import default_device
from carray.typing import Advance, Float32s, Progress, Rows


@dataclass(frozen=True, eq=False)
class TrialModel:
    """A trial's classifier, and the pixels of its data set in its geometry."""

    member: Member
    pixels: Square

    @classmethod
    def load(cls, trial: TrialFolder, manifest: Manifest, progress: Progress) -> TrialModel:
        """Load a trial's weights and open its pixel store.

        Raises:
            DataError: as `open_store`.
            RecordError: its weights are gone.
        """
        record = trial.record()
        weights = weights_of(trial, record)
        card = MemberCard(
            trial=record.name, config=record.config, input=member_input(record.config, weights)
        )
        member = load_member(weights, card, len(manifest.classes), default_device())
        return cls(member, open_store(manifest, *member.geometry, progress).pixels)

    def logits(self, rows: Rows, view: View, advance: Advance) -> Float32s:
        """Return logits (rows, classes) of images of the data set, seen through a view."""
        parts = []
        for start in range(0, len(rows), BATCH_IMAGES):
            some = rows[start : start + BATCH_IMAGES]
            parts.append(self.member.logits(self.pixels[some], view))
            advance(len(some))
        return np.concatenate(parts)
