"""Which refits a study has, and what of a budget they get."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from carray.config import build_config
from carray.records import TrialRecord, TrialState
from carray.search.request import StudyRequest
from carray.search.scheduling.refits import Refit, refit_rounds, wanted_refits

CONFIG = build_config({"seed": 3})
WITHIN = StudyRequest(data="d", budget="1h")


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (15, 3 * (32,)),  # trainings: twelve of them four times as long, and three trials before
        (45, 9 * (32,)),
        (99, 9 * (32,)),  # no more than nine
        (10, (32, 8, 8, 8, 8)),  # no three: further seeds beside one
        (9, (32, 8, 8, 8)),
        (8, 6 * (8,)),  # two beside one are too few
        (5, 4 * (8,)),
        (1, ()),
    ],
)
def test_as_many_long_ones_of_a_pretrained_network_as_fit(
    budget: int, kept: tuple[int, ...]
) -> None:
    found = refit_rounds((32,), lambda epochs: epochs / 8, budget, 9, shorter=(8,), enough=3)
    assert found == kept


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (10, 2 * (32,)),
        (9, 3 * (16,)),  # one that is four times as long fits, but no second one
        (5, 2 * (16,)),
        (3, (16,)),
        (2, (8,)),  # none that is twice as long fits
    ],
)
def test_as_many_of_the_longest_as_fit(budget: int, kept: tuple[int, ...]) -> None:
    found = refit_rounds((32, 16), lambda epochs: epochs / 8, budget, 9, shorter=(8,))
    assert found == kept


def test_a_round_of_lanes_is_several_refits() -> None:
    asked = {"lanes": 2, "shorter": (8,), "enough": 3}
    assert refit_rounds((32,), lambda epochs: epochs / 8, 10, 9, **asked) == (32, 32)
    assert refit_rounds((32,), lambda epochs: epochs / 8, 8, 9, **asked) == (32, 8, 8)
    assert refit_rounds((32,), lambda epochs: epochs / 8, 5, 9, **asked) == (8, 8, 8, 8)


def test_a_length_that_was_asked_for_is_had_with_as_few_as_fit() -> None:
    assert refit_rounds((16,), lambda epochs: epochs / 8, 3, 9) == (16,)
    assert refit_rounds((16,), lambda epochs: epochs / 8, 5, 9) == (16, 16)


def ended(count: int, state: TrialState = TrialState.COMPLETE) -> list[TrialRecord]:
    return [TrialRecord(study="s", number=n, config=CONFIG, state=state) for n in range(count)]


@pytest.mark.parametrize(
    ("trials", "wanted"),
    [
        (1, {0: 9}),
        (2, {0: 6, 1: 3}),
        (20, {0: 4, 1: 2, 2: 1, 3: 1, 4: 1}),
    ],
)
def test_better_trials_get_further_seeds_within_a_budget(
    trials: int, wanted: dict[int, int]
) -> None:
    refits = wanted_refits(WITHIN, [*ended(trials), *ended(3, TrialState.PRUNED)], 12)
    assert Counter(refit.of.number for refit in refits) == wanted
    assert {refit.epochs for refit in refits} == {12}
    assert len({(refit.of.number, refit.seed) for refit in refits}) == 9
    first = [(refit.of.number, refit.seed) for refit in refits[:2]]
    assert first == ([(0, 1003), (1, 1003)] if trials > 1 else [(0, 1003), (0, 2003)])


def test_a_call_that_says_how_many_gets_the_best_trials() -> None:
    asked, ranked = replace(WITHIN, refit=2), [*ended(1), *ended(2, TrialState.PRUNED)]
    refits = wanted_refits(asked, ranked, 12)
    assert [refit.of for refit in refits] == ranked[:2]
    assert {refit.seed for refit in refits} == {3}
    assert wanted_refits(StudyRequest(data="d"), ranked, 12) == []


def test_a_refit_is_known_by_its_trial_its_epochs_and_its_seed() -> None:
    (of,) = ended(1)
    refit = Refit.longer(of, 12, further_seed=1)
    told = {"study": "s", "number": 5, "kind": "refit", "refit_of": 0, "state": of.state}
    config = of.config.model_copy(update={"epochs": refit.epochs, "seed": refit.seed})
    record = TrialRecord(config=config, **told)
    others = [Refit.longer(of, 12), Refit.longer(of, 6, 1), Refit.longer(ended(2)[1], 12, 1)]
    assert refit.has_ended([of, record])
    assert not any(other.has_ended([of, record]) for other in others)
    assert others[1].is_same(record, of_any_length=True)
    for state in (TrialState.RUNNING, TrialState.PRUNED):
        assert not refit.has_ended([record.model_copy(update={"state": state})])
    assert others[1].has_ended([record], or_longer=True), "what is shorter is needless"
    assert not Refit.longer(of, 18, 1).has_ended([record], or_longer=True)
    assert Refit.longer(of, of.config.epochs).has_ended([]), "it is the trial itself"


def test_nothing_is_kept_before_the_first_epoch_is_timed() -> None:
    assert refit_rounds((32, 16), lambda epochs: 0.0, 100.0, 9, shorter=(8,)) == ()
