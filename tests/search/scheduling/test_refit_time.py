"""What is kept of a budget for refits, and how many still fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from carray.metrics import EPOCH_SECONDS
from carray.records import TrialState
from carray.search.request import StudyRequest
from carray.search.scheduling.refit_time import RefitTime
from carray.search.scheduling.refits import SEEDS_APART, refit_lengths, wanted_refits
from carray.search.space.yaml_reader import parse_space
from tests.search.scheduling.test_time_plan import Search
from tests.search.test_ledger import open_ledger, row

Say = Callable[[str], None]


def refit_time(
    search: Search,
    lanes: int = 1,
    begun: float = 0.0,
    say: Say = print,
    clock: Callable[[], float] = time.monotonic,
    is_pretrained: bool = True,
    text: str = "version: 1\n",
    **options: Any,
) -> RefitTime:
    """Return it for a budget of fifteen trainings of three epochs, of half a minute each."""
    asked = StudyRequest(data="d", budget="450s", **options)
    study = SimpleNamespace(max_epochs=3, extended_from=None)
    space = parse_space(f"{text}fixed: {{epochs: 3, pretrained: {is_pretrained}}}".lower(), "s")
    lengths = refit_lengths(asked, 3, space)
    setup = SimpleNamespace(request=asked, study=study, space=space, refit_lengths=lengths)
    plan = SimpleNamespace(lanes=lanes)
    within = (begun, begun + 450.0, say, clock)
    return RefitTime(cast(Any, setup), search.ledger, cast(Any, plan), *within)


def test_a_budget_keeps_time_for_refits_once_there_is_what_to_refit(tmp_path: Path) -> None:
    search = Search(open_ledger(tmp_path, trials=9)[0])
    alone, two = refit_time(search), refit_time(search, lanes=2)
    assert alone.reserved(search.plan.pace) == 0.0, "nothing is known yet"
    search.ledger.end(search.train(1).number, TrialState.PRUNED)
    search.train(1)
    assert alone.reserved(search.plan.pace) == 0.0, "nothing is complete"
    assert alone.reserved(search.plan.pace, soon=True) == pytest.approx(360.0)
    search.complete()
    assert alone.reserved(search.plan.pace) == pytest.approx(360.0)
    assert two.reserved(search.plan.pace) == pytest.approx(360.0)  # three rounds of two
    few = refit_time(search, refit=2)
    assert few.reserved(search.plan.pace) == pytest.approx(120.0), "what is asked for is kept"


@pytest.mark.parametrize(
    ("is_pretrained", "left", "taken", "said"),
    [
        (
            True,
            450,
            [(12, 1), (12, 2), (12, 3), (3, 4), (3, 5), (3, 6)],
            [
                f"budget: {left} left, too little for 12 epochs (2:00): trial 0000 with a further "
                "seed, 3 epochs (30 s)"
                for left in ("1:30", "1:00", "30 s")
            ]
            + ["budget: 0.0 s left, too little for 3 epochs (30 s)"],
        ),
        (True, 300, [(12, 1), *((3, seed) for seed in range(2, 8))], None),  # three wouldn't fit
        (True, 200, [(3, seed) for seed in range(1, 7)], None),  # nor three of three beside one
        (True, 29, [], []),
        (False, 450, [(12, 1), (12, 2), (12, 3), (6, 4), (3, 5)], None),
        (
            False,
            200,
            [(6, 1), (6, 2), (6, 3)],
            ["budget: 20 s left, too little for 3 epochs (30 s)"],
        ),
        (False, 160, [(6, 1), (6, 2), (3, 3)], None),
        (False, 100, [(6, 1), (3, 2)], None),
        (False, 59, [(3, 1)], None),
    ],
)
def test_each_refit_is_the_longest_for_which_time_is_left(
    tmp_path: Path,
    is_pretrained: bool,
    left: int,
    taken: list[tuple[int, int]],
    said: list[str] | None,
) -> None:
    search, lines = Search(open_ledger(tmp_path, trials=1)[0]), list[str]()
    of = search.complete()
    search.now = 450.0 - left
    options: dict[str, Any] = {"clock": lambda: search.now, "is_pretrained": is_pretrained}
    budget = refit_time(search, say=lines.append, **options)
    budget.pace = search.plan.pace
    found = []
    for refit in budget.refits([of]):
        found.append((refit.epochs, (refit.seed - of.config.seed) // SEEDS_APART))
        search.now += 10.0 * refit.epochs
    assert found == taken
    if said is not None:
        assert [line for line in lines if "enough for" not in line] == said


@pytest.mark.parametrize(("left", "planned"), [(250, [7, 7]), (160, [7]), (100, [3, 3, 3])])
def test_one_refit_of_larger_images_is_worth_the_seeds_that_it_costs(
    tmp_path: Path, left: int, planned: list[int]
) -> None:
    """Seven epochs of ten seconds take 116 s, by their images' pixels; twelve of a trial 120."""
    search = Search(open_ledger(tmp_path, trials=1)[0])
    of = search.complete()
    search.now = 450.0 - left
    text = "version: 1\nrefit: {image_size: 288}\n"
    budget = refit_time(search, clock=lambda: search.now, text=text)
    budget.pace = search.plan.pace
    assert [refit.epochs for refit in budget.planned([of])] == planned


def test_refits_end_with_the_budget_though_epochs_take_longer(tmp_path: Path) -> None:
    search = Search(open_ledger(tmp_path, trials=1)[0])
    of = search.complete()
    search.now = 0.0
    budget = refit_time(search, clock=lambda: search.now)
    budget.pace = search.plan.pace
    found = []
    for refit in budget.refits([of]):
        found.append(refit.epochs)
        for epoch in range(1, refit.epochs + 1):
            search.now += 20.0
            budget.pace.note(refit.of.config, epoch, 20.0)
    assert found == [12, 3, 3, 3]  # 420 s of 450, where three of twelve epochs were planned


def test_a_call_that_says_how_long_refits_are_gets_no_shorter_ones(tmp_path: Path) -> None:
    search = Search(open_ledger(tmp_path, trials=1)[0])
    of = search.complete()
    search.now = 400.0
    for options in ({"refit": 1}, {"refit_epochs": 12}):
        budget = refit_time(search, clock=lambda: search.now, **options)
        budget.pace = search.plan.pace
        assert list(budget.refits([of])) == []


def test_what_fits_is_counted_without_what_is_done(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path, trials=1)
    ledger.ask()
    ledger.report(0, 1, row(1.0) | {EPOCH_SECONDS: 10.0}, {})
    of, said = ledger.end(0, TrialState.COMPLETE), list[str]()
    budget = refit_time(Search(ledger), begun=time.monotonic(), say=said.append)
    wanted = wanted_refits(StudyRequest(data="d", budget="450s"), [of], 12)
    assert budget.count_that_fit(wanted) == 3
    assert said.pop().endswith("left, enough for 3 of 9 refits of 2:00")
    done = ledger.open_refit(of, 12, wanted[0].seed)
    assert budget.count_that_fit(wanted) == 3, "one that was begun isn't done"
    assert not said, "the same isn't said twice"
    ledger.end(done.number, TrialState.COMPLETE)
    assert budget.count_that_fit(wanted) == 4
    assert said.pop().endswith("left, enough for 3 of 8 refits of 2:00")
