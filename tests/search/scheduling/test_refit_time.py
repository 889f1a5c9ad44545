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
from carray.search.scheduling.refits import wanted_refits
from tests.search.scheduling.test_time_plan import Search
from tests.search.test_ledger import open_ledger, row

Say = Callable[[str], None]


def refit_time(
    search: Search, lanes: int = 1, begun: float = 0.0, say: Say = print, **options: Any
) -> RefitTime:
    """Return it for a budget of fifteen trainings of three epochs, of half a minute each."""
    asked = StudyRequest(data="d", budget="450s", **options)
    study = SimpleNamespace(max_epochs=3, extended_from=None)
    setup = SimpleNamespace(request=asked, study=study, refit_lengths=(12, 6))
    plan = SimpleNamespace(lanes=lanes)
    return RefitTime(cast(Any, setup), search.ledger, cast(Any, plan), begun, begun + 450.0, say)


def test_a_budget_keeps_time_for_refits_once_there_is_what_to_refit(tmp_path: Path) -> None:
    search = Search(open_ledger(tmp_path, trials=9)[0])
    alone, two = refit_time(search), refit_time(search, lanes=2)
    assert alone.reserved(search.plan.pace) == 0.0, "nothing is known yet"
    search.ledger.end(search.train(1).number, TrialState.PRUNED)
    search.train(1)
    assert alone.reserved(search.plan.pace) == 0.0, "nothing is complete"
    search.complete()
    assert alone.reserved(search.plan.pace) == pytest.approx(360.0)
    assert two.reserved(search.plan.pace) == pytest.approx(360.0)  # three rounds of two
    few = refit_time(search, refit=2)
    assert few.reserved(search.plan.pace) == pytest.approx(240.0), "what is asked for is kept"


def test_what_fits_is_counted_without_what_is_done(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path, trials=1)
    ledger.ask()
    ledger.report(0, 1, row(1.0) | {EPOCH_SECONDS: 10.0}, {})
    of, said = ledger.end(0, TrialState.COMPLETE), list[str]()
    budget = refit_time(Search(ledger), begun=time.monotonic(), say=said.append)
    wanted = wanted_refits(StudyRequest(data="d", budget="450s"), [of], 12)
    assert budget.count_that_fit(wanted) == 3
    assert said.pop().endswith("left, enough for 3 of 9 refits of 2:00")
    done = ledger.open_refit(of, 12, wanted[0].config.seed)
    assert budget.count_that_fit(wanted) == 3, "one that was begun isn't done"
    assert not said, "the same isn't said twice"
    ledger.end(done.number, TrialState.COMPLETE)
    assert budget.count_that_fit(wanted) == 4
    assert said.pop().endswith("left, enough for 3 of 8 refits of 2:00")
