"""Predicts a split's images through test-time views, and selects the set that an ensemble uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from carray.ensemble.result import Ensemble
from carray.ensemble.tta import evaluate_tta_sets
from carray.inference.card import MemberCard
from carray.inference.package import member_input
from carray.inference.predictor import (
    BATCH_IMAGES,
    Geometry,
    Member,
    Square,
    load_member,
    open_stores,
)
from carray.predictions.averaging import WeightedAverage, average_log_p
from carray.predictions.labels import study_manifest
from carray.predictions.logits import log_softmax
from carray.predictions.scores import make_folds
from carray.predictions.views import NONE, Tta
from carray.progress import silent
from carray.records import StudyRecord, TrialFolder
from carray.remote_studies import fetched_weights
from carray.training.train import default_device
from carray.typing import Float32s, Labels, Progress


@dataclass(frozen=True, eq=False)
class TtaPredictor:
    """An ensemble's members, loaded, and the pixels of the study's images in their geometries."""

    members: tuple[Member, ...]
    blend: WeightedAverage
    pixels: dict[Geometry, Square]
    rows: dict[str, Labels]
    """Row numbers of each split."""
    progress: Progress

    @classmethod
    def of(
        cls, ensemble: Ensemble, study: StudyRecord, progress: Progress = silent
    ) -> TtaPredictor:
        """Load the members that have a weight, and open their pixel stores.

        Raises:
            RecordError: the study's data are gone or have changed.
            WeightsError: a member's weights are gone.
        """
        trials = [TrialFolder(member.folder) for member in ensemble.chosen]
        return cls.of_trials(trials, ensemble.blend, study, progress)

    @classmethod
    def of_trials(
        cls,
        trials: Sequence[TrialFolder],
        blend: WeightedAverage,
        study: StudyRecord,
        progress: Progress = silent,
    ) -> TtaPredictor:
        """Load trials that `blend` merges; raises as `of`."""
        manifest = study_manifest(study)
        members = []
        for trial in trials:
            record = trial.record()
            weights = fetched_weights(trial)
            spec = member_input(record.config, weights)
            card = MemberCard(trial=record.name, config=record.config, input=spec)
            members.append(load_member(weights, card, len(study.classes), default_device()))
        stores = open_stores(manifest, members, progress)
        blend = replace(blend, members=tuple(range(len(members))), temperature=1.0)
        rows = {split: manifest.rows(split) for split in ("val", "blend", "test")}
        return cls(tuple(members), blend, stores, rows, progress)

    def log_ps(self, split: str, ttas: Sequence[Tta]) -> list[Float32s]:
        """Return the ensemble's log-probabilities (images, classes) with each of `ttas`, at
        temperature 1; no view is looked through twice."""
        rows = self.rows[split]
        views = dict.fromkeys(view for tta in ttas for view in tta.views)
        parts: list[list[Float32s]] = [[] for _ in ttas]
        total = len(rows) * len(views) * len(self.members)
        with self.progress(f"views of {split}", total) as advance:
            for start in range(0, len(rows), BATCH_IMAGES):
                some = rows[start : start + BATCH_IMAGES]
                answers = []
                for member in self.members:
                    squares = self.pixels[member.geometry][some]
                    by_view = {}
                    for view in views:
                        by_view[view] = log_softmax(member.logits(squares, view))
                        advance(len(some))
                    answers.append(by_view)
                for part, tta in zip(parts, ttas, strict=True):
                    each = [
                        tta.merged([by_view[view] for view in tta.views]) for by_view in answers
                    ]
                    part.append(average_log_p(each, self.blend.weights, self.blend.space))
        return [np.concatenate(part) for part in parts]


def select_tta(
    ensemble: Ensemble, viewer: TtaPredictor, ttas: Sequence[Tta], labels: Labels, seed: int
) -> Ensemble:
    """Measure `ttas` on the split that judged the rules; keep the best that earned its place."""
    split = ensemble.judged_on.partition(",")[0]
    sets = (NONE, *ttas)
    rows = evaluate_tta_sets(
        sets, viewer.log_ps(split, sets), labels, make_folds(labels, seed), seed
    )
    place = next(place for place, row in enumerate(rows) if row.chosen)
    if place == 0:
        return replace(ensemble, tta_rows=rows)
    temperature = rows[place].temperature
    return replace(
        ensemble,
        tta_rows=rows,
        tta=sets[place],
        blend=ensemble.blend.with_temperature(temperature),
    )
