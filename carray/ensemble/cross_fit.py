"""Cross-fitted scores of combination rules: each on images that it wasn't fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from carray import metrics
from carray.ensemble.selection import USUAL, Rule
from carray.predictions.averaging import WeightedAverage
from carray.predictions.logits import SplitPredictions
from carray.predictions.scores import (
    SCORES,
    CalibrationFit,
    cross_fit_temperature,
    log_losses,
    top1,
)
from carray.predictions.statistics import (
    CONFIDENCE,
    bootstrap_means,
    mcnemar_exact,
    two_sided_p,
)
from carray.typing import Float32s, Rows


@dataclass(frozen=True)
class RuleScore:
    """How one rule did on images that it wasn't fitted to."""

    rule: str
    blend: WeightedAverage
    """Fitted to all images."""
    log_loss: float
    top1: float
    value: float
    """In the metric that rules are chosen by."""
    losses: Float32s = field(repr=False, compare=False)
    """Each image's log-loss."""
    right: npt.NDArray[np.bool_] = field(repr=False, compare=False)
    """Whether each image's likeliest class is right."""


def score_rule(
    rule: Rule,
    predictions: SplitPredictions,
    folds: Sequence[Rows],
    metric: str = metrics.VAL_LOG_LOSS,
    beside: SplitPredictions | None = None,
) -> RuleScore:
    """Cross-fit a rule and its temperature: each fold is scored by what the others taught.

    The temperature is fitted to what the same trials said `beside` too, where nothing was scored.
    A stack has none: its mean weight is its scale.
    """
    blend = rule.fit(predictions)
    log_p = _held_out_log_p(rule, blend, predictions, folds)
    if blend.stack:
        settled = CalibrationFit(1.0, log_losses(log_p, predictions.labels))
    else:
        more = (blend.log_p(beside), beside.labels) if beside else None
        settled = cross_fit_temperature(log_p, predictions.labels, folds, more)
    loss = float(settled.losses.mean())  # at its temperature, which ranks no class anew
    is_loss = metric in metrics.LOG_LOSSES
    return RuleScore(
        rule.name,
        blend.with_temperature(settled.temperature),
        loss,
        top1(log_p, predictions.labels),
        loss if is_loss else SCORES[metric](log_p, predictions.labels),
        settled.losses,
        log_p.argmax(axis=1) == predictions.labels,
    )


def reason_for_single(
    best: RuleScore, single: RuleScore, metric: str, keep_best: bool | None, seed: int
) -> str:
    """Say why the best single trial is to be packaged and not the best rule; "" if it isn't.

    Decided where the rules were judged, never on test. `keep_best`: None keeps the trial where it
    is shown to be better than the rule, for the few images that judge call it better by luck now
    and then; True wherever the rule isn't shown to be better, False never.
    """
    scores = f"{metrics.SHORT_NAMES[metric]} {single.value:.4f}, by {best.rule} {best.value:.4f}"
    if keep_best is False:
        return ""
    if _is_shown_better(single, best, metric, seed):
        return f"it is better alone: {scores}"
    if keep_best and not _is_shown_better(best, single, metric, seed):
        return f"the ensemble isn't shown to be better: {scores}"
    return ""


def _is_shown_better(one: RuleScore, other: RuleScore, metric: str, seed: int) -> bool:
    """Say whether a paired test tells them apart in favour of `one`: bootstrap, or McNemar's."""
    if metric in metrics.LOG_LOSSES:
        gains = bootstrap_means((other.losses - one.losses)[:, None], seed)[:, 0]
        return bool(gains.mean() > 0) and two_sided_p(gains) < 1 - CONFIDENCE
    only = int((one.right & ~other.right).sum()), int((other.right & ~one.right).sum())
    return only[0] > only[1] and mcnemar_exact(*only) < 1 - CONFIDENCE


def first_by_score(scores: Sequence[RuleScore], metric: str) -> RuleScore:
    """Return the rule that is best in `metric`; of equals, the one with less log-loss."""
    return _by_score(scores, metric)[0]


def _by_score(scores: Sequence[RuleScore], metric: str) -> list[RuleScore]:
    key = metrics.Objective(metric).key
    return sorted(scores, key=lambda score: (key(score.value), score.log_loss))


def best_rule(scores: Sequence[RuleScore], metric: str, seed: int) -> RuleScore:
    """Return `USUAL`, unless another rule is shown to be better; without it the best score.

    A hundred images rank eight rules by luck, and that one is mostly the best on others. A vote is
    shown to be better where, say, a member gives right classes no probability. In a metric that
    isn't a log-loss the best score counts: shares right tell rules apart too seldom.
    """
    ranked = _by_score(scores, metric)
    usual = next((score for score in ranked if score.rule == USUAL), None)
    if usual is None or metric not in metrics.LOG_LOSSES:
        return ranked[0]
    ahead = ranked[: ranked.index(usual)]
    return next((one for one in ahead if _is_shown_better(one, usual, metric, seed)), usual)


def _held_out_log_p(
    rule: Rule, blend: WeightedAverage, predictions: SplitPredictions, folds: Sequence[Rows]
) -> Float32s:
    """Return every image's log-probabilities by a blend that wasn't fitted to it."""
    if not rule.is_fitted:
        return blend.log_p(predictions)
    everything = np.arange(len(predictions.labels))
    blends = [rule.fit(predictions, np.setdiff1d(everything, held)) for held in folds]
    predictions.preload([member for fitted in blends for member in fitted.members])
    parts = [fitted.log_p(predictions, held) for fitted, held in zip(blends, folds, strict=True)]
    log_p = np.empty((len(everything), parts[0].shape[1]), np.float32)
    for held, part in zip(folds, parts, strict=True):
        log_p[held] = part
    return log_p
