"""`build_ensemble`: records and logits in, the best combination and its honest number out.

Members by `val`, the rule by `blend`, one look at `test`. No model is loaded, no torch imported.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from carray import metrics
from carray.ensemble.budget import Budget, MeasuredPool, parse_budget
from carray.ensemble.cross_fit import (
    RuleScore,
    best_rule,
    first_by_score,
    reason_for_single,
    score_rule,
)
from carray.ensemble.pool import Pool, find_studies
from carray.ensemble.result import ALONE, Ensemble, MemberRow, RuleRow
from carray.ensemble.selection import RULES, WIDE, Rule, SoftVote, all_rules
from carray.errors import ConfigError, RecordError, counted, did_you_mean
from carray.files import read_json, write_json
from carray.inference.versions import version_name
from carray.predictions.averaging import WeightedAverage
from carray.predictions.candidates import (
    Candidate,
)
from carray.predictions.logits import SplitPredictions, log_softmax
from carray.predictions.scores import SCORES, log_loss, make_folds
from carray.predictions.statistics import Comparison, compare, scores_of_log_p
from carray.predictions.test_access import record_access
from carray.predictions.views import Tta, parse_tta_sets
from carray.progress import silent
from carray.records import StudyFolder
from carray.runs_folder import RunsFolder
from carray.typing import Float32s, Progress

if TYPE_CHECKING:
    from carray.ensemble.tta_views import TtaPredictor


def build_ensemble(
    study: str | Sequence[str] | None = None,
    *,
    top: int = 3,
    folds: bool = False,
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
    max_latency: str | None = None,
    max_size: str | None = None,
    on: str = "cpu",
    seed: int = 0,
    progress: Progress = silent,
) -> Ensemble:
    """Build the best ensemble of the trials of one or several studies, and a model package of it.

    Args:
        study: its name, or the names of several on the same data; None takes the newest search.
        top: how many of the best complete trials vote, and of stopped ones where those are too
            few. Wide stacking has up to three times as many; greedy selection picks among all.
        folds: trials on folds join too; of the best `top` configurations, those that folds trained
            come first and vote with all their folds.
        runs: the runs folder; None takes `$CARRAY_RUNS`, else `./runs`.
        name: the package's name; None says what it holds: `STUDY-top3` the best three trials,
            `STUDY-greedy5` five that greedy selection picked, `STUDY-best1` the best alone.
        metric: picks members on `val`, and the rule; None takes the study's own.
        rule: one of `RULES`; None: by log-loss wide stacking, unless another is shown better.
        logits_only: use trials without weights too, and write no package.
        open_test: look at the test split, which is recorded.
        from_tracking: fetch the study's records and logits from the tracking server first.
        track: log the package to the tracking server.
        tta: sets of views (`carray.predictions.views`) to measure where the rules are judged, or
            `auto`; the best is kept if it beats none by more than chance.
        keep_best: package the best single trial alone where the ensemble isn't shown to be better
            where the rules are judged; None: where it is shown to be worse there, unless `rule`
            is given; False: never.
        max_latency: what its members' networks may take together for one image, as in `15ms`;
            they are timed where they weren't, and members chosen among all trials, whatever `top`.
        max_size: the same of their weights, as in `200MB`.
        on: where they are timed, `cpu` or `cuda`.
        seed: of the folds and of the bootstrap.
        progress: shows how far the views are.

    Raises:
        RecordError: no such study, no trial within the budget, too few trials with logits, logits
            or labels of other data; studies of different data.
        ConfigError: `top`, `metric`, `rule`, `tta`, a budget or `name` can't be.
        TrackingError: `from_tracking`, and the server doesn't answer or has no such study.
    """
    start = time.perf_counter()
    where = RunsFolder.at(runs)
    folders = find_studies(where, study, from_tracking)
    pool = Pool.open(where, folders, metric, need_weights=not logits_only, folds=folds)
    _check_rule(rule)
    within = None
    if budget := parse_budget(max_latency, max_size, on):
        _check_budget_alone(tta, rule)
        within = measured_pool(pool, folders, budget, progress)
        pool, top = within.pool, 1
    members, asked = pool.candidates.best(top), top
    top = min(top, len(pool.candidates.ranked()))
    name = name and checked_package_name(name, "")
    ttas = _parse_tta_sets(tta, logits_only)
    has_folds = any(each.record.config.fold is not None for each in members)
    is_wide = top > 1 and not has_folds  # who asks for one gets one, and folds are many
    most = pool.candidates.best(WIDE * top if is_wide else top)
    more = [each for each in most if each.is_complete or each in members]
    ensemble = _judge(pool, members, more, rule, keep_best, seed, within)
    usual = f"{pool.name}-{_what_it_holds(ensemble, members, top)}"
    ensemble = replace(ensemble, name=checked_package_name(name, usual))
    if top < asked:
        note = f"--top {asked} asks for more than there are: {counted(top, 'trial')} can join"
        ensemble = replace(ensemble, notes=(note, *ensemble.notes))
    viewer = None
    if ttas and ensemble.kept_single:
        note = "--tta wasn't measured, since the package holds one trial: --top 1 measures it there"
        ensemble = replace(ensemble, notes=(*ensemble.notes, note))
    elif ttas:
        from carray.ensemble.tta_views import TtaPredictor, select_tta

        viewer = TtaPredictor.of(ensemble, pool.study, progress)
        labels = pool.labels.of(pool.split)
        ensemble = select_tta(ensemble, viewer, ttas, labels, pool.labels.of("val"), seed)
    if open_test:
        ensemble = _open_test(pool, ensemble, viewer, seed)
    ensemble = replace(ensemble, seconds=time.perf_counter() - start)
    if not logits_only:
        from carray.ensemble.publish import publish

        ensemble = publish(pool.runs, pool.study, ensemble, track=track)
    pool.runs.keep(_write_result(pool.folder, ensemble))
    return ensemble


def _what_it_holds(ensemble: Ensemble, best: Sequence[Candidate], top: int) -> str:
    """Name a model after its members: `top3`, `top3-folds`, `greedy5`, `fitted2`, `best1`."""
    trials = [member.trial for member in ensemble.packaged]
    if trials == [ensemble.single.trial]:
        return "best1"
    if sorted(trials) == sorted(candidate.record.name for candidate in best):
        on_folds = any(candidate.record.config.fold is not None for candidate in best)
        return f"top{top}{'-folds' * on_folds}"
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


def _check_budget_alone(tta: str | Sequence[str] | None, rule: str | None) -> None:
    for option, value in (("--tta", tta), ("--rule", rule)):
        if value:
            raise ConfigError(
                f"{option} {value} can't be had with --max-latency and --max-size: within a "
                "budget trials vote with equal weights, and see an image once"
            )


def measured_pool(
    pool: Pool, folders: Sequence[StudyFolder], budget: Budget, progress: Progress
) -> MeasuredPool:
    """Return what of a pool fits a budget; networks that weren't timed here are timed now.

    Raises:
        RecordError: no trial can join, or nothing fits.
        ConfigError: there is no such device.
    """
    from carray.inference.measure_network import measure_study

    pool.candidates.best(1)
    known = [measure_study(folder, budget.on, progress=progress) for folder in folders]
    pool.runs.keep(*(folder.costs_file for folder in folders))
    return MeasuredPool.of(pool, known, budget)


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
    pool: Pool,
    members: Sequence[Candidate],
    more: Sequence[Candidate],
    rule: str | None,
    keep_best: bool | None,
    seed: int,
    within: MeasuredPool | None = None,
) -> Ensemble:
    """Score every rule where it wasn't fitted, and choose; in a budget there is one."""
    labels, trials = pool.labels.of(pool.split), pool.candidates.trials
    predictions = SplitPredictions(trials, pool.split, labels)
    numbers, wide = (tuple(map(trials.index, each)) for each in (members, more))
    everyone = tuple(range(len(trials)))
    rules: Sequence[Rule] = (within.rule(),) if within else all_rules(numbers, wide, everyone)
    folds = make_folds(labels, seed)
    metric = pool.candidates.metric
    on_val = pool.labels.of("val")
    beside = predictions.beside(on_val)
    scores = [score_rule(rule, predictions, folds, metric, beside) for rule in rules]
    eligible = [score for score in scores if rule in (None, score.rule)]
    best = best_rule(eligible, metric, seed)
    shown = tuple(dict.fromkeys((*best.blend.members, *numbers)))
    single = SplitPredictions(pool.best_single(members), pool.split, labels)
    by_itself = SoftVote((0,), ALONE)
    alone = score_rule(by_itself, single, folds, metric, single.beside(on_val))
    kept = reason_for_single(best, alone, metric, keep_best, seed)
    notes = pool.notes(members)
    first = first_by_score((*eligible, alone), metric)
    if first.value != best.value and not kept:
        notes.append(
            f"{first.rule} scored better, but isn't shown to be better than {best.rule}, which is "
            "mostly ahead on other images"
        )
    if kept and rule and keep_best is None:  # whoever names a rule asks for its ensemble
        notes.append(f"the best single trial isn't kept, since --rule asks for {rule}: {kept}")
        kept = ""
    if kept and not pool.best_single(members)[0].has_weights:
        notes.append(f"the best single trial would be packaged ({kept}), but its weights are gone")
        kept = ""
    is_calibrated = metric == metrics.VAL_CALIBRATED_LOG_LOSS  # as rules are, not at its own best

    def judged(number: int) -> float:
        if is_calibrated:
            return score_rule(SoftVote((number,)), predictions, folds, metric, beside).value
        return SCORES[metric](predictions.log_p(number), labels)

    own = alone.value if is_calibrated else SCORES[metric](single.log_p(0), labels)
    ensemble = Ensemble(
        study=pool.candidates.study,
        name="",
        classes=pool.labels.classes,
        manifest_hash=pool.study.manifest_hash,
        metric=metric,
        members=tuple(
            _row(predictions, number, best.blend, metric, judged(number)) for number in shown
        ),
        rules=tuple(_rule_row(score, best) for score in (*scores, alone)),
        rule=best.rule,
        blend=replace(best.blend, members=tuple(map(shown.index, best.blend.members))),
        single=_row(single, 0, alone.blend, metric, own),
        single_temperature=alone.blend.temperature,
        judged_on=pool.judged_on,
        judged_images=len(labels),
        test=None,
        models_that_opened_test=0,
        notes=tuple(notes),
        seconds=0.0,
        kept_single=kept,
    )
    if not within:
        return ensemble
    cost = within.cost([member.trial for member in ensemble.packaged])
    return replace(ensemble, budget=within.budget, milliseconds=cost[0], mb=cost[1])


def _row(
    predictions: SplitPredictions, number: int, blend: WeightedAverage, metric: str, judged: float
) -> MemberRow:
    candidate, log_p = predictions.candidates[number], predictions.log_p(number)
    weights = dict(zip(blend.members, blend.weights, strict=True))
    return MemberRow(
        trial=candidate.record.name,
        folder=candidate.folder.path,
        backbone=candidate.record.config.backbone,
        model=candidate.model_name,
        state=str(candidate.record.state),
        fold=candidate.record.config.fold,
        weight=weights.get(number, 0.0),
        val_log_loss=candidate.record.best(metrics.VAL_LOG_LOSS),
        val_top1=candidate.record.best(metrics.VAL_TOP1),
        blend_log_loss=log_loss(log_p, predictions.labels),
        val_value=candidate.record.best(metric),
        judged_value=judged,
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


def _open_test(pool: Pool, ensemble: Ensemble, viewer: TtaPredictor | None, seed: int) -> Ensemble:
    """Look at the test split, once, and leave a record of it."""
    labels = pool.labels.of("test")
    if len(labels) == 0:
        return replace(ensemble, notes=(*ensemble.notes, "there is no test split to open"))
    trials = {candidate.record.name: candidate for candidate in pool.singles.trials}
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
            pool.runs,
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
