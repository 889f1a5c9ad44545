"""Rules and temperatures are judged on images that they weren't fitted to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from carray.ensemble.cross_fit import (
    best_rule,
    first_by_score,
    reason_for_single,
    score_rule,
)
from carray.ensemble.selection import USUAL, FittedWeights, Greedy, SoftVote
from carray.ensemble.stacking import Stacking
from carray.errors import RecordError
from carray.metrics import LOG_LOSSES
from carray.predictions.candidates import read_trials
from carray.predictions.logits import SplitPredictions, log_softmax
from carray.predictions.scores import (
    SCORES,
    TEMPERATURES,
    best_temperature,
    cross_fitted_log_p,
    fitted_temperature,
    log_loss,
    log_losses,
    make_folds,
    temperature_losses,
)
from carray.records import StudyFolder
from carray.typing import Rows
from tests.ensemble.studies import StudySpec, Trial, make_study


def votes_of(tmp_path: Path, spec: StudySpec) -> SplitPredictions:
    folder = make_study(tmp_path, spec)
    return SplitPredictions(read_trials(folder), "blend", folder.labels("blend"))


def test_folds_hold_every_image_once_and_spread_classes() -> None:
    labels = np.repeat(np.arange(4), 25)
    folds = make_folds(labels)
    assert sorted(np.concatenate(folds).tolist()) == list(range(100))
    assert all(np.bincount(labels[fold]).tolist() == [5, 5, 5, 5] for fold in folds)


def test_greedy_on_noise_is_scored_worse_than_it_fits(tmp_path: Path) -> None:
    spec = StudySpec([Trial(skill=0.0, noise=2.0)] * 30, images={"val": 40, "blend": 40}, classes=4)
    predictions = votes_of(tmp_path, spec)
    scored = score_rule(Greedy(tuple(range(30))), predictions, make_folds(predictions.labels))
    fitted = log_loss(scored.blend.with_temperature(1.0).log_p(predictions), predictions.labels)
    assert scored.log_loss > fitted + 0.02


def test_overconfident_logits_get_a_temperature_and_calibrated_ones_do_not(
    tmp_path: Path,
) -> None:
    loud = votes_of(tmp_path / "loud", StudySpec([Trial(scale=4.0)]))
    scored = score_rule(SoftVote((0,)), loud, make_folds(loud.labels))
    assert scored.blend.temperature > 1.5
    assert scored.log_loss < log_loss(loud.log_p(0), loud.labels) - 0.05
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5)).astype(np.float32) * 2
    p = np.exp(log_softmax(logits)).astype(np.float64)
    labels = (p.cumsum(axis=1) > rng.uniform(size=(4000, 1))).argmax(axis=1)
    losses = temperature_losses(log_softmax(logits), labels)
    assert TEMPERATURES[losses.mean(axis=0).argmin()] == pytest.approx(1.0, abs=0.08)


def test_a_temperature_is_fitted_to_val_too_and_each_image_left_out(tmp_path: Path) -> None:
    images = {"val": 300, "blend": 30, "test": 20}
    predictions = votes_of(tmp_path, StudySpec([Trial(scale=4.0)], images=images))
    log_p, labels, folds = predictions.log_p(0), predictions.labels, make_folds(predictions.labels)
    val = StudyFolder(tmp_path / "studies" / "autumn").labels("val")
    beside = predictions.beside(val)
    assert beside is not None

    def suiting(rows: Rows) -> float:
        both = np.concatenate([log_p[rows], beside.log_p(0)])
        return best_temperature(both, np.concatenate([labels[rows], val]))

    scored = score_rule(SoftVote((0,)), predictions, folds, beside=beside)
    assert scored.blend.temperature == suiting(np.arange(30)) > 1.5
    for held in folds:
        chosen = suiting(np.setdiff1d(np.arange(30), held))
        scaled = log_softmax(log_p[held] / np.float32(chosen))
        assert scored.losses[held] == pytest.approx(log_losses(scaled, labels[held]))
    alone = score_rule(SoftVote((0,)), predictions, folds)
    assert alone.blend.temperature == 1.0, "thirty images can't tell"
    assert alone.log_loss == pytest.approx(log_loss(log_p, labels))


def test_a_temperature_that_val_wants_and_the_scored_images_lose_by_is_not_kept() -> None:
    numbers = np.random.default_rng(0)
    logits = numbers.normal(size=(600, 4)).astype(np.float32)
    log_p = log_softmax(2 * logits)
    labels = np.array([numbers.choice(4, p=p / p.sum()) for p in np.exp(log_p).astype(float)])
    sure = log_p[:500], log_p[:500].argmax(axis=1)  # as where it chose the trials
    few, their = log_p[500:], labels[500:]
    scaled, temperature = cross_fitted_log_p(few, their, make_folds(their), sure)
    assert temperature == fitted_temperature(few, their, sure) == 1
    assert np.array_equal(scaled, few)


def test_val_is_no_help_where_it_is_scored_or_another_one(tmp_path: Path) -> None:
    folder = make_study(tmp_path, StudySpec([Trial(), Trial(fold=1)]))
    trials, val = read_trials(folder), folder.labels("val")
    assert SplitPredictions(trials, "val", val).beside(val) is None
    on_blend = {len(some): SplitPredictions(some, "blend", val) for some in (trials, trials[:1])}
    assert (on_blend[2].beside(val) is None, on_blend[1].beside(val) is None) == (True, False)
    assert on_blend[1].beside(val[:0]) is None


def test_a_rule_is_chosen_by_the_metric_that_is_asked_for(tmp_path: Path) -> None:
    predictions = votes_of(tmp_path, StudySpec([Trial(skill=1.0), Trial(skill=3.0)]))
    folds = make_folds(predictions.labels)
    for metric, score in SCORES.items():
        scores = [score_rule(SoftVote((k,), str(k)), predictions, folds, metric) for k in (0, 1)]
        best = int(predictions.true_log_p.mean(axis=1).argmax())
        assert best_rule(scores, metric, 0) is first_by_score(scores, metric) is scores[best]
        if metric not in LOG_LOSSES:  # those are cross-fitted
            assert scores[0].value == score(predictions.log_p(0), predictions.labels)


def test_by_log_loss_the_usual_rule_is_chosen_unless_another_is_shown_to_be_better(
    tmp_path: Path,
) -> None:
    metric = "val/log_loss"
    predictions = votes_of(tmp_path, StudySpec([Trial(skill=3.0), Trial(skill=2.9), Trial()]))
    folds = make_folds(predictions.labels)
    usual = score_rule(Stacking((0, 1), USUAL), predictions, folds, metric)
    vote = score_rule(SoftVote((0, 1)), predictions, folds, metric)
    lucky = replace(vote, value=usual.value - 0.01, losses=usual.losses)
    assert first_by_score([usual, lucky], metric) is lucky
    assert best_rule([usual, lucky], metric, 0) is usual
    better = replace(lucky, losses=usual.losses - 0.1)
    assert best_rule([usual, better, lucky], metric, 0) is better
    right = replace(usual, value=0.5), replace(lucky, value=0.6)
    assert best_rule(right, "val/top1", 0) is right[1]


@pytest.mark.parametrize("metric", ["val/log_loss", "val/top1"])
def test_a_trial_that_is_better_alone_is_kept_unless_that_is_forbidden(
    tmp_path: Path, metric: str
) -> None:
    trials = [Trial(skill=3.0), Trial(skill=0.3, noise=3.0)]
    predictions = votes_of(tmp_path, StudySpec(trials))
    folds = make_folds(predictions.labels)
    best = int(predictions.true_log_p.mean(axis=1).argmax())
    alone = score_rule(SoftVote((best,), "best single trial"), predictions, folds, metric)
    both = score_rule(SoftVote((0, 1)), predictions, folds, metric)
    why = reason_for_single(both, alone, metric, None, 0)
    assert why.startswith("it is better alone: ")
    assert f"{alone.value:.4f}, by soft vote {both.value:.4f}" in why
    assert reason_for_single(both, alone, metric, False, 0) == ""
    lucky = replace(both, value=alone.value)
    assert reason_for_single(both, lucky, metric, None, 0) == "", "it isn't shown to be better"
    assert reason_for_single(alone, both, metric, None, 0) == ""
    assert reason_for_single(alone, both, metric, True, 0) == ""
    assert "isn't shown to be better" in reason_for_single(alone, alone, metric, True, 0)
    assert reason_for_single(alone, alone, metric, None, 0) == ""


def test_fitted_weights_prefer_the_better_trial(tmp_path: Path) -> None:
    predictions = votes_of(tmp_path, StudySpec([Trial(skill=5.0), Trial(skill=0.5)]))
    best = int(predictions.true_log_p.mean(axis=1).argmax())
    blend = FittedWeights((0, 1)).fit(predictions)
    assert blend.members[0] == best
    assert blend.weights[0] > 0.8


def test_logits_of_other_data_are_refused_with_both_shapes(tmp_path: Path) -> None:
    folder = make_study(tmp_path, StudySpec([Trial()]))
    predictions = SplitPredictions(read_trials(folder), "blend", np.zeros(7, np.int64))
    with pytest.raises(RecordError, match=r"\(300, 6\) on 'blend', which has 7 images"):
        predictions.log_p(0)
