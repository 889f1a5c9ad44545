"""Which trials an ensemble of all that have ended would take: the search goes on near those."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from carray.errors import RecordError
from carray.predictions.averaging import pick_from_best
from carray.predictions.logits import read_logits, true_log_probability
from carray.records import StudyFolder, TrialRecord, TrialState
from carray.typing import Float32s, Labels


class EnsembleMembers:
    """Weights of the trials in a greedy ensemble on `val`; each trial's logits are read once.

    Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self._read: dict[tuple[int, int], Float32s] = {}  # by trial and its epochs

    @cached_property
    def _labels(self) -> Labels:
        return self._folder.labels("val")

    def weights(self, records: Sequence[TrialRecord]) -> dict[int, float]:
        """Return {number in Optuna: weight} of the members; empty while no trial left logits."""
        drawn = {r.sampler_number: r for r in records if r.sampler_number is not None}
        numbers = [number for number, record in drawn.items() if self._row(record) is not None]
        if not numbers:
            return {}
        picks = pick_from_best(self.probabilities([drawn[number] for number in numbers]))
        return {numbers[pick]: picks.count(pick) / len(picks) for pick in set(picks)}

    def probabilities(self, records: Sequence[TrialRecord]) -> Float32s:
        """Return what each trial that left logits gives the right class, (trials, images)."""
        rows = [row for record in records if (row := self._row(record)) is not None]
        return np.exp(np.stack(rows)) if rows else np.empty((0, len(self._labels)), np.float32)

    def _row(self, record: TrialRecord) -> Float32s | None:
        """Return what a trial says of the right classes, (images,); None where it left nothing."""
        key = record.number, len(record.epochs)
        if record.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            return None
        if key not in self._read:
            try:
                trial = self._folder.trial(record.number)
                logits = read_logits(trial, record.name, "val", len(self._labels))
            except RecordError:
                return None  # not written yet, or broken, which the ensemble says
            self._read[key] = true_log_probability(logits, self._labels)
        return self._read[key]
