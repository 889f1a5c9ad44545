"""An ablation's last steps: test-time views and folds of the best recipe, judged on `blend`."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from carray.analysis.ablation_step import AblationStep, step_of
from carray.analysis.cross_validation import assemble_folds, combine_folds
from carray.data.manifest import Manifest
from carray.ensemble.tta import KEPT, TtaRow, evaluate_tta_sets
from carray.ensemble.tta_views import TtaPredictor
from carray.predictions.candidates import Candidate
from carray.predictions.logits import SplitPredictions, log_softmax
from carray.predictions.scores import log_losses, make_folds
from carray.predictions.statistics import Interval, Verdict, gain_verdict, mean_interval
from carray.predictions.views import NONE, parse_tta_sets
from carray.records import StudyRecord, TrialRecord
from carray.runs_folder import RunsFolder
from carray.training.cross_validation import train_folds
from carray.training.train import OnEpoch
from carray.typing import Float32s, Labels, Progress


def tta_step(
    runs: RunsFolder,
    study: str,
    trials: Sequence[str],
    names: str | None,
    progress: Progress,
) -> AblationStep:
    """Measure sets of views with trials that vote on `blend`; the step is the best of them.

    It is held against the same trials without views: what stands, or the trials on all folds.
    """
    record = runs.study(study).record()
    labels = _blend_labels(record)
    sets = (NONE, *parse_tta_sets(names or "auto"))
    folders = [runs.find_trial(name) for name in trials]
    average = combine_folds("soft vote", len(trials)).average
    log_ps = TtaPredictor.of_trials(folders, average, record, progress).log_ps("blend", sets)
    rows = evaluate_tta_sets(sets, log_ps, labels, make_folds(labels), 0)
    chosen = [row for row in rows[1:] if row.chosen]
    best = min(chosen or rows[1:], key=lambda row: row.log_loss)
    log_p = log_softmax(log_ps[rows.index(best)] / np.float32(best.temperature))
    views = f"views: {best.name}"
    what = views if len(trials) == 1 else f"{len(trials)} folds x {best.views} {views}"
    return _step(what, tuple(trials), log_p, labels, best.gain, _verdict(best))


def _verdict(row: TtaRow) -> Verdict:
    if row.verdict == KEPT:
        return "better"
    return "within noise" if row.gain.high > 0 else "worse"


def _blend_labels(record: StudyRecord) -> Labels:
    manifest = Manifest.load(record.data)
    return manifest.labels[manifest.rows("blend")]


def folds_step(
    runs: RunsFolder,
    study: str,
    stands: TrialRecord,
    folds: int,
    weights: str | os.PathLike[str] | None,
    on_epoch: OnEpoch | None,
    progress: Progress,
) -> AblationStep:
    """Train what stands on every fold; the step is the better merging of the folds."""
    folder = runs.study(study)
    record = folder.record()
    labels = _blend_labels(record)
    records = train_folds(
        record.data,
        stands.config,
        folds,
        runs=runs.path,
        study=study,
        weights=weights,
        on_epoch=on_epoch,
        progress=progress,
    )
    assembled = assemble_folds(study, trial=stands.number, runs=runs.path, open_test=False)
    candidates = [Candidate(folder.trial(one.number), one, 0.0) for one in records]
    predictions = SplitPredictions(candidates, "blend", labels)
    average = combine_folds(assembled.rule, len(records)).average
    alone = log_softmax(folder.trial(stands.number).logits("blend"))
    log_p = average.log_p(predictions)
    gain = mean_interval(log_losses(alone, labels) - log_losses(log_p, labels))
    names = tuple(one.name for one in records)
    return _step(f"{folds} folds, {assembled.rule}", names, log_p, labels, gain, gain_verdict(gain))


def _step(
    name: str,
    trials: tuple[str, ...],
    log_p: Float32s,
    labels: Labels,
    gain: Interval,
    verdict: Verdict,
) -> AblationStep:
    losses, right = log_losses(log_p, labels), log_p.argmax(axis=1) == labels
    return step_of(name, trials, losses, right, "blend", gain, verdict, stays=verdict == "better")
