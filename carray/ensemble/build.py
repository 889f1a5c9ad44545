"""`build_ensemble`: records and logits in, the best combination and its honest number out.

Members by `val`, the rule by `blend`, one look at `test`. No model is loaded, no torch imported.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carray import metrics
from carray.ensemble.cross_fit import RuleScore, best_rule, reason_for_single, score_rule
from carray.ensemble.result import Ensemble, MemberRow, RuleRow
from carray.ensemble.selection import RULES, SoftVote, all_rules
from carray.errors import ConfigError, RecordError, did_you_mean
from carray.files import read_json, write_json
from carray.inference.versions import version_name
from carray.predictions.averaging import WeightedAverage
from carray.predictions.candidates import (
    NO_WEIGHTS,
    Candidate,
    Candidates,
    find_candidates,
    read_trials,
)
from carray.predictions.labels import HeldLabels, held_labels
from carray.predictions.logits import SplitPredictions, log_softmax
from carray.predictions.scores import log_loss, make_folds
from carray.predictions.statistics import Comparison, compare, scores_of_log_p
from carray.predictions.test_access import record_access
from carray.predictions.views import Tta, parse_tta_sets
from carray.progress import silent
from carray.records import StudyFolder, StudyRecord
from carray.runs_folder import RunsFolder
from carray.typing import Float32s, Progress

if TYPE_CHECKING:
    from carray.ensemble.tta_views import TtaPredictor

MIN_BLEND_IMAGES = 10  # fewer can't be cut into folds that mean anything


def build_ensemble(
    study: str | None = None,
    *,
    top: int = 3,
    runs: str | os.PathLike[str] | None = None,
    name: str | None = None,
    metric: str | None = None,
    rule: str | None = None,
    logits_only: bool = False,
    open_test: bool = True,
    from_tracking: bool = False,
    track: bool = True,
    tta: str | Sequence[str] | None = None,
    keep_best: bool | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Ensemble:
    """Build the best ensemble of a study's trials, and a model package of it.

    Args:
        study: its name; None takes the newest search.
        top: how many of the best complete trials vote, and of stopped ones where those are too
            few; greedy selection may pick any trial.
        runs: the runs folder; None takes `$CARRAY_RUNS`, else `./runs`.
        name: the package's name; None says what it holds: `STUDY-top3` the best three trials,
            `STUDY-greedy5` five that greedy selection picked, `STUDY-best1` the best alone.
        metric: picks members on `val`, and the rule; None takes the study's own.
        rule: one of `RULES`; None takes the best of them.
        logits_only: use trials without weights too, and write no package.
        open_test: look at the test split, which is recorded.
        from_tracking: fetch the study's records and logits from the tracking server first.
        track: log the package to the tracking server.
        tta: sets of views (`carray.predictions.views`) to measure where the rules are judged, or
            `auto`; the best is kept if it beats none by more than chance.
        keep_best: package the best single trial alone where the ensemble isn't shown to be better
            where the rules are judged; None: where it is worse there, unless `rule` is given;
            False: never.
        seed: of the folds and of the bootstrap.
        progress: shows how far the views are.

    Raises:
        RecordError: no such study, too few trials with logits, logits or labels of other data.
        ConfigError: `top`, `metric`, `rule`, `tta` or `name` can't be.
        TrackingError: `from_tracking`, and the server doesn't answer or has no such study.
    """
    start = time.perf_counter()
    folder = _find_study(RunsFolder.at(runs), study, from_tracking)
    source = _Source.open(RunsFolder.at(runs), folder, metric, need_weights=not logits_only)
    members = source.candidates.best(top)
    _check_rule(rule)
    name = name and checked_package_name(name, "")
    ttas = _parse_tta_sets(tta, logits_only)
    ensemble = _judge(source, members, rule, keep_best, seed)
    usual = f"{source.study.name}-{_what_it_holds(ensemble, members)}"
    ensemble = replace(ensemble, name=checked_package_name(name, usual))
    viewer = None
    if ttas and ensemble.kept_single:
        note = "--tta wasn't measured, since the package holds one trial: --top 1 measures it there"
        ensemble = replace(ensemble, notes=(*ensemble.notes, note))
    elif ttas:
        from carray.ensemble.tta_views import TtaPredictor, select_tta

        viewer = TtaPredictor.of(ensemble, source.study, progress)
        labels = source.labels.of(ensemble.judged_on.partition(",")[0])
        ensemble = select_tta(ensemble, viewer, ttas, labels, seed)
    if open_test:
        ensemble = _open_test(source, ensemble, viewer, seed)
    ensemble = replace(ensemble, seconds=time.perf_counter() - start)
    if not logits_only:
        from carray.ensemble.publish import publish

        ensemble = publish(source.runs, source.study, ensemble, track=track)
    source.runs.keep(_write_result(folder, ensemble))
    return ensemble


def _what_it_holds(ensemble: Ensemble, best: Sequence[Candidate]) -> str:
    """Name a model after its members: `top3`, `greedy5`, `fitted2`, `best1`."""
    trials = [member.trial for member in ensemble.packaged]
    if trials == [ensemble.single.trial]:
        return "best1"
    if sorted(trials) == sorted(candidate.record.name for candidate in best):
        return f"top{len(trials)}"
    return f"{ensemble.rule.partition(' ')[0]}{len(trials)}"


def _write_result(folder: StudyFolder, ensemble: Ensemble) -> Path:
    """Return the file of what the ensemble was worth; what test measured is never replaced."""
    number = 1
    while True:
        file = folder.ensembles / f"{version_name(ensemble.name, number)}.json"
        is_measured = file.exists() and bool(read_json(file).get("test"))
        if ensemble.test is not None or not is_measured:
            write_json(file, ensemble.as_dict())
            return file
        number += 1


@dataclass(frozen=True)
class _Source:
    """A study as an ensemble sees it."""

    runs: RunsFolder
    study: StudyRecord
    labels: HeldLabels
    candidates: Candidates
    singles: Candidates
    """With trials whose weights are gone: the best single trial is the best of all."""

    @classmethod
    def open(
        cls, runs: RunsFolder, folder: StudyFolder, metric: str | None, *, need_weights: bool
    ) -> _Source:
        study, trials = folder.record(), read_trials(folder, metric)
        candidates = find_candidates(study, trials, metric, need_weights=need_weights)
        singles = find_candidates(study, trials, metric, need_weights=False)
        return cls(runs, study, held_labels(folder), candidates, singles)

    def best_single(self, members: Sequence[Candidate]) -> list[Candidate]:
        """Return the best trial that ran to its end, or the best member if a stopped one is better.

        An ensemble is no gain if one of its own members alone is as good.
        """
        known = {member.record.number for member in members}
        usable = (t for t in self.singles.trials if t.is_complete or t.record.number in known)
        return [next(usable, members[0])]


def _find_study(runs: RunsFolder, study: str | None, from_tracking: bool) -> StudyFolder:
    if not from_tracking:
        return runs.find_study(study)
    if study is None:
        raise ConfigError("--from-tracking needs the study's name: add --study NAME")
    from carray.tracking import download_study

    return download_study(runs, study)


def checked_package_name(name: str | None, usual: str) -> str:
    """Return the name of a package: `name`, else the usual one as a folder can bear it.

    Raises:
        ConfigError: `name` can't be a folder's.
    """
    if name is None:
        return re.sub(r"[^\w.+-]", "_", usual)
    if not re.fullmatch(r"[\w][\w.+-]*", name):
        raise ConfigError(
            f"the name {name!r} can't be a folder: use letters, digits, '.', '+', '-' and '_'"
        )
    return name


def _check_rule(rule: str | None) -> None:
    if rule is not None and rule not in RULES:
        raise ConfigError(
            f"unknown rule {rule!r}{did_you_mean(rule, RULES)}; one of {', '.join(RULES)}"
        )


def _parse_tta_sets(tta: str | Sequence[str] | None, logits_only: bool) -> tuple[Tta, ...]:
    if not tta:
        return ()
    if logits_only:
        raise ConfigError("--tta looks at images again, which takes weights: drop --logits-only")
    return parse_tta_sets(tta)


def _judge(
    source: _Source,
    members: Sequence[Candidate],
    rule: str | None,
    keep_best: bool | None,
    seed: int,
) -> Ensemble:
    """Score every rule where it wasn't fitted, and take the best."""
    split, judged_on = _judging_split(source.labels)
    labels = source.labels.of(split)
    pool = source.candidates.trials
    predictions = SplitPredictions(pool, split, labels)
    numbers = tuple(pool.index(member) for member in members)
    rules = all_rules(numbers, tuple(range(len(pool))))
    folds = make_folds(labels, seed)
    metric = source.candidates.metric
    scores = [score_rule(rule, predictions, folds, metric) for rule in rules]
    eligible = [score for score in scores if rule in (None, score.rule)]
    best = best_rule(eligible, metric)
    shown = tuple(dict.fromkeys((*best.blend.members, *numbers)))
    single = SplitPredictions(source.best_single(members), split, labels)
    alone = score_rule(SoftVote((0,), "best single trial"), single, folds, metric)
    kept = reason_for_single(best, alone, metric, keep_best, seed)
    notes = _notes(source, judged_on, members)
    if kept and rule and keep_best is None:  # whoever names a rule asks for its ensemble
        notes.append(f"the best single trial isn't kept, since --rule asks for {rule}: {kept}")
        kept = ""
    if kept and not source.best_single(members)[0].has_weights:
        notes.append(f"the best single trial would be packaged ({kept}), but its weights are gone")
        kept = ""
    return Ensemble(
        study=source.study.name,
        name="",
        classes=source.labels.classes,
        manifest_hash=source.study.manifest_hash,
        metric=metric,
        members=tuple(_row(predictions, number, best.blend) for number in shown),
        rules=tuple(_rule_row(score, best) for score in (*scores, alone)),
        rule=best.rule,
        blend=replace(best.blend, members=tuple(map(shown.index, best.blend.members))),
        single=_row(single, 0, alone.blend),
        single_temperature=alone.blend.temperature,
        judged_on=judged_on,
        judged_images=len(labels),
        test=None,
        models_that_opened_test=0,
        notes=tuple(notes),
        seconds=0.0,
        kept_single=kept,
    )


def _judging_split(labels: HeldLabels) -> tuple[str, str]:
    if len(labels.of("blend")) >= MIN_BLEND_IMAGES:
        return "blend", "blend"
    if len(labels.of("val")) >= MIN_BLEND_IMAGES:
        return "val", "val, cross-fitted"
    raise RecordError(
        f"blend has {len(labels.of('blend'))} images and val {len(labels.of('val'))}: rules need "
        f"at least {MIN_BLEND_IMAGES}; prepare the data with larger --blend or --val"
    )


def _notes(source: _Source, judged_on: str, members: Sequence[Candidate]) -> list[str]:
    notes = []
    if stopped := sum(member.is_stopped for member in members):
        notes.append(
            f"{stopped} of the {len(members)} trials that vote {'were' if stopped > 1 else 'was'} "
            f"stopped early, as only {len(members) - stopped} can join that ran to the end"
        )
    if judged_on != "blend":
        notes.append(
            f"there is no blend split of {MIN_BLEND_IMAGES} images or more: rules were "
            "cross-fitted on val, which also picked epochs and members"
        )
    left_out = source.candidates.left_out
    notes += [
        f"left out: {count} trial{'s' * (count > 1)} {reason}" for reason, count in left_out.items()
    ]
    if left_out.get(NO_WEIGHTS):
        notes.append("--logits-only uses them too, and writes no package")
    return notes


def _row(predictions: SplitPredictions, number: int, blend: WeightedAverage) -> MemberRow:
    candidate = predictions.candidates[number]
    weights = dict(zip(blend.members, blend.weights, strict=True))
    return MemberRow(
        trial=candidate.record.name,
        folder=candidate.folder.path,
        backbone=candidate.record.config.backbone,
        state=str(candidate.record.state),
        weight=weights.get(number, 0.0),
        val_log_loss=candidate.record.best(metrics.VAL_LOG_LOSS),
        val_top1=candidate.record.best(metrics.VAL_TOP1),
        blend_log_loss=log_loss(predictions.log_p(number), predictions.labels),
    )


def _rule_row(score: RuleScore, best: RuleScore) -> RuleRow:
    return RuleRow(
        score.rule,
        len(score.blend.members),
        score.log_loss,
        score.top1,
        score.blend.temperature,
        score is best,
        score.value,
    )


def _open_test(
    source: _Source, ensemble: Ensemble, viewer: TtaPredictor | None, seed: int
) -> Ensemble:
    """Look at the test split, once, and leave a record of it."""
    labels = source.labels.of("test")
    if len(labels) == 0:
        return replace(ensemble, notes=(*ensemble.notes, "there is no test split to open"))
    trials = {candidate.record.name: candidate for candidate in source.singles.trials}
    chosen = [member.trial for member in ensemble.chosen]
    predictions = SplitPredictions(
        [trials[name] for name in (*chosen, ensemble.single.trial)], "test", labels
    )
    models = 0
    looked = [(chosen, ensemble.combination)]
    if ensemble.kept_single:  # what is published counts, and so does what it was preferred to
        looked.append(([ensemble.single.trial], ensemble.packaged_combination))
    for members, combination in looked:
        models = record_access(
            source.runs,
            model=ensemble.name,
            study=ensemble.study,
            manifest_hash=ensemble.manifest_hash,
            trials=members,
            combination=combination,
        )
    views_log_p = viewer.log_ps("test", [ensemble.tta])[0] if viewer and ensemble.tta else None
    return replace(
        ensemble,
        test=_compare(predictions, ensemble, views_log_p, seed),
        single_untempered=scores_of_log_p(predictions.log_p(len(chosen)), labels, seed),
        models_that_opened_test=models,
    )


def _compare(
    predictions: SplitPredictions, ensemble: Ensemble, views_log_p: Float32s | None, seed: int
) -> Comparison:
    """Compare the last of `predictions` with the average of the others, each at its temperature.

    `views_log_p` are the ensemble's log-probabilities through its views, at temperature 1. The
    single trial is scaled as the ensemble is: else calibration alone would pass for a gain.
    """
    average = ensemble.combination.average
    last = len(average.members)
    single = WeightedAverage((last,), (1.0,), temperature=ensemble.single_temperature)
    combined = average.log_p(predictions)
    if views_log_p is not None:
        combined = log_softmax(views_log_p / np.float32(average.temperature))
    return compare(single.log_p(predictions), combined, predictions.labels, seed)


def default_package(runs: str | os.PathLike[str] | None = None) -> Path:
    """Return the newest model package under `runs`.

    Raises:
        RecordError: there is none.
    """
    from carray.inference.package import packages

    found = packages(RunsFolder.at(runs))
    if not found:
        raise RecordError("there is no model package yet; run `carray ensemble` first")
    return found[-1]
