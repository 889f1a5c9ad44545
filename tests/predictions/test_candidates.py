"""Who may join an ensemble, and who may not and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from carray.errors import ConfigError, RecordError
from carray.predictions.candidates import (
    NO_WEIGHTS,
    SAME_CONFIG,
    SUPERSEDED,
    Candidates,
    find_candidates,
    read_trials,
)
from carray.records import TrialState
from tests.ensemble.studies import StudySpec, Trial, make_study


def candidates_of(tmp_path: Path, trials: list[Trial], need_weights: bool = True) -> Candidates:
    folder = make_study(tmp_path, StudySpec(trials, images={"val": 200}))
    return find_candidates(folder.record(), read_trials(folder), need_weights=need_weights)


def numbers(candidates: Candidates) -> list[int]:
    return [trial.record.number for trial in candidates.trials]


def test_the_best_by_val_log_loss_come_first(tmp_path: Path) -> None:
    found = candidates_of(tmp_path, [Trial(skill=1), Trial(skill=5), Trial(skill=3)])
    assert numbers(found) == [1, 2, 0]


def test_trials_that_are_equal_in_the_metric_are_ranked_by_log_loss(tmp_path: Path) -> None:
    trials = [Trial(skill=8), Trial(skill=30), Trial(skill=20)]
    folder = make_study(tmp_path, StudySpec(trials, images={"val": 20}))
    found = read_trials(folder, "val/top1")
    assert {trial.value for trial in found} == {1.0}
    assert [trial.record.number for trial in found] == [1, 2, 0]


def test_without_a_metric_the_studys_own_ranks_them(tmp_path: Path) -> None:
    trials = [Trial(skill=2.5, scale=9), Trial(skill=1.9), Trial(skill=0.5)]
    folder = make_study(tmp_path, StudySpec(trials, images={"val": 200}))
    by_loss = [trial.record.number for trial in read_trials(folder)]
    study = folder.record().model_copy(update={"metric": "val/top1"})
    study.write(folder.record_file)
    found = read_trials(folder)
    assert find_candidates(study, found).metric == "val/top1"
    assert [trial.value for trial in found] == sorted((t.value for t in found), reverse=True)
    assert [trial.record.number for trial in found] == [0, 1, 2] != by_loss


def test_a_metric_that_no_trial_has_ranks_nothing(tmp_path: Path) -> None:
    folder = make_study(tmp_path, StudySpec([Trial(), Trial()], images={"val": 20}))
    with pytest.raises(RecordError, match=r"no trial of study 'autumn' has val/balanced_accuracy"):
        read_trials(folder, "val/balanced_accuracy")


def test_pruned_trials_may_join_but_are_not_among_the_best(tmp_path: Path) -> None:
    trials = [Trial(skill=5, state=TrialState.PRUNED), Trial(skill=2), Trial(skill=1)]
    found = candidates_of(tmp_path, trials)
    assert numbers(found) == [0, 1, 2]
    assert [trial.record.number for trial in found.best(2)] == [1, 2]


def test_stopped_trials_fill_up_where_too_few_are_complete(tmp_path: Path) -> None:
    pruned = TrialState.PRUNED
    trials = [Trial(skill=5, state=pruned), Trial(skill=1), Trial(skill=3, state=pruned)]
    found = candidates_of(tmp_path, trials)
    assert [trial.record.number for trial in found.best(3)] == [1, 0, 2]


def test_a_refit_supersedes_the_trial_that_it_refits(tmp_path: Path) -> None:
    found = candidates_of(tmp_path, [Trial(skill=4), Trial(skill=2), Trial(skill=5, refit_of=0)])
    assert numbers(found) == [2, 1]
    assert found.left_out == {SUPERSEDED: 1}


def test_a_refit_by_another_seed_stands_beside_its_trial(tmp_path: Path) -> None:
    found = candidates_of(tmp_path, [Trial(skill=4), Trial(skill=5, refit_of=0, seed=1000)])
    assert numbers(found) == [1, 0] and not found.left_out


def test_a_refit_that_came_out_worse_leaves_its_trial_in(tmp_path: Path) -> None:
    found = candidates_of(tmp_path, [Trial(skill=5), Trial(skill=2), Trial(skill=1, refit_of=0)])
    assert numbers(found) == [0, 1, 2] and not found.left_out


def test_a_failed_refit_supersedes_nothing(tmp_path: Path) -> None:
    found = candidates_of(tmp_path, [Trial(), Trial(state=TrialState.FAILED, refit_of=0)])
    assert numbers(found) == [0]


def test_the_same_configuration_counts_once(tmp_path: Path) -> None:
    found = candidates_of(tmp_path, [Trial(skill=2), Trial(skill=3, same_as=0)])
    assert len(found.trials) == 1
    assert found.left_out == {SAME_CONFIG: 1}


def test_trials_without_weights_join_only_where_nothing_is_packaged(tmp_path: Path) -> None:
    trials = [Trial(skill=5, has_weights=False), Trial(skill=2)]
    found = candidates_of(tmp_path / "packaged", trials)
    assert numbers(found) == [1]
    assert found.left_out == {NO_WEIGHTS: 1}
    assert numbers(candidates_of(tmp_path / "logits", trials, need_weights=False)) == [0, 1]


def test_asking_for_more_than_there_are_takes_all_but_not_none(tmp_path: Path) -> None:
    found = candidates_of(tmp_path / "three", [Trial()] * 3)
    assert len(found.best(30)) == 3
    failed = candidates_of(tmp_path / "none", [Trial(state=TrialState.COLLAPSED)])
    with pytest.raises(RecordError, match=r"no trial yet .* \(left out: 1 that collapsed\)"):
        failed.best(30)
    with pytest.raises(ConfigError, match="--top 0 must be at least 1"):
        found.best(0)


@pytest.mark.parametrize(
    ("trials", "why"),
    [
        ([Trial(state=TrialState.RUNNING)] * 2, r"\(left out: 2 not finished\); search on$"),
        ([Trial(fold=1)], r"\(left out: 1 scored on a fold\); --with-folds takes those on folds$"),
        ([Trial(has_weights=False)], r"; --logits-only takes those without weights"),
    ],
)
def test_where_no_trial_can_join_it_is_said_what_lets_one(
    tmp_path: Path, trials: list[Trial], why: str
) -> None:
    with pytest.raises(RecordError, match=why):
        candidates_of(tmp_path, trials).best(1)


def test_an_unknown_metric_is_refused_with_the_nearest(tmp_path: Path) -> None:
    folder = make_study(tmp_path, StudySpec([Trial()]))
    with pytest.raises(ConfigError, match="did you mean 'val/log_loss'"):
        read_trials(folder, "val/logloss")
