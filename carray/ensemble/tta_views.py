"""An ensemble's answers through test-time views, and the set of views that it uses.

Views are looked through once: their logits are kept beside the trials, and later calls load no
model and import no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from carray.data.manifest import Manifest
from carray.data.pixels.augmentation import View
from carray.ensemble.result import Ensemble
from carray.ensemble.tta import evaluate_tta_sets
from carray.predictions.averaging import WeightedAverage
from carray.predictions.labels import study_manifest
from carray.predictions.logits import NUM_THREADS, log_softmax
from carray.predictions.scores import fitted_temperature, make_folds
from carray.predictions.view_logits import store_view, stored_view
from carray.predictions.views import NONE, Tta
from carray.progress import silent
from carray.records import Logits, StudyRecord, TrialFolder, TrialRecord
from carray.typing import Float32s, Labels, Progress

if TYPE_CHECKING:
    from carray.ensemble.tta_models import TrialModel

MERGED_IMAGES = 500  # merged at once: bounds the memory of many members and views


@dataclass(frozen=True, eq=False)
class TtaPredictor:
    """An ensemble's members, and the data set whose images they look at."""

    trials: tuple[TrialFolder, ...]
    records: tuple[TrialRecord, ...]
    blend: WeightedAverage
    manifest: Manifest
    progress: Progress
    _models: dict[int, TrialModel] = field(default_factory=dict)
    """Those that had to be loaded, by member."""

    @classmethod
    def of(
        cls, ensemble: Ensemble, study: StudyRecord, progress: Progress = silent
    ) -> TtaPredictor:
        """Take the members that have a weight.

        Raises:
            RecordError: the study's data are gone or have changed.
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
        """Take trials that `blend` merges; raises as `of`."""
        manifest = study_manifest(study)
        records = tuple(trial.record() for trial in trials)
        blend = replace(blend, members=tuple(range(len(trials))), temperature=1.0)
        return cls(tuple(trials), records, blend, manifest, progress)

    def log_ps(self, split: str, ttas: Sequence[Tta]) -> list[Float32s]:
        """Return the ensemble's log-probabilities (images, classes) with each of `ttas`, at
        temperature 1; no view is looked through twice.

        Raises:
            DataError: a pixel store can't be had.
            RecordError: a view wasn't looked through yet, and a member's weights are gone.
        """
        views = tuple(dict.fromkeys(view for tta in ttas for view in tta.views))
        seen = self._seen(split, views)

        def merged(some: slice) -> list[Float32s]:
            answers = [{v: log_softmax(own[v][some]) for v in views} for own in seen]
            each = ([tta.merged([own[v] for v in tta.views]) for own in answers] for tta in ttas)
            return [self.blend.merged(log_ps) for log_ps in each]

        images = len(self.manifest.rows(split))
        parts = [slice(n, n + MERGED_IMAGES) for n in range(0, images, MERGED_IMAGES)]
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            return [np.concatenate(own) for own in zip(*pool.map(merged, parts), strict=True)]

    def _seen(self, split: str, views: Sequence[View]) -> list[dict[View, Logits]]:
        """Return every member's logits of each view, looked through where none are kept."""
        members = range(len(self.trials))
        missing = [(m, v) for m in members for v in views if self._stored(m, v, split) is None]
        if missing:
            rows = self.manifest.rows(split)
            with self.progress(f"views of {split}", len(rows) * len(missing)) as advance:
                for member, view in missing:
                    logits = self._model(member).logits(rows, view, advance)
                    store_view(self.trials[member], view, split, logits)
        found = [{v: self._stored(m, v, split) for v in views} for m in members]
        return [{v: own for v, own in each.items() if own is not None} for each in found]

    def _stored(self, member: int, view: View, split: str) -> Logits | None:
        shape = len(self.manifest.rows(split)), len(self.manifest.classes)
        return stored_view(self.trials[member], self.records[member], view, split, shape)

    def _model(self, member: int) -> TrialModel:
        if member not in self._models:
            from carray.ensemble.tta_models import TrialModel  # imports torch

            own = self.trials[member], self.manifest, self.progress
            self._models[member] = TrialModel.load(*own)
        return self._models[member]


def select_tta(
    ensemble: Ensemble,
    viewer: TtaPredictor,
    ttas: Sequence[Tta],
    labels: Labels,
    val: Labels,
    seed: int,
) -> Ensemble:
    """Measure `ttas` on the split that judged the rules; keep the best that earned its place.

    Its temperature is fitted to `val` too, seen through the same views, unless a member was judged
    on a fold in its place.
    """
    split = ensemble.judged_on.partition(",")[0]
    sets = (NONE, *ttas)
    log_ps = viewer.log_ps(split, sets)
    rows = evaluate_tta_sets(sets, log_ps, labels, make_folds(labels, seed), seed)
    place = next(place for place, row in enumerate(rows) if row.chosen)
    if place == 0:
        return replace(ensemble, tta_rows=rows)
    on_folds = any(member.fold is not None for member in ensemble.chosen)
    beside = None
    if split != "val" and len(val) and not on_folds:
        beside = viewer.log_ps("val", [sets[place]])[0], val
    temperature = fitted_temperature(log_ps[place], labels, beside)
    return replace(
        ensemble,
        tta_rows=rows,
        tta=sets[place],
        blend=ensemble.blend.with_temperature(temperature),
    )
