"""What is kept of a budget for refits grows with the trials that there are to train again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from carray.records import TrialState
from carray.search.request import StudyRequest
from carray.search.scheduling.refit_time import RefitTime
from tests.search.scheduling.test_time_plan import Search
from tests.search.test_ledger import open_ledger


def refit_time(search: Search, lanes: int = 1, **options: Any) -> RefitTime:
    """Return it for a budget of fifteen trainings of three epochs, of half a minute each."""
    asked = StudyRequest(data="d", budget="450s", **options)
    study = SimpleNamespace(max_epochs=3, extended_from=None)
    setup = SimpleNamespace(request=asked, study=study, refit_lengths=(12, 6))
    plan = SimpleNamespace(lanes=lanes)
    return RefitTime(cast(Any, setup), search.ledger, cast(Any, plan), 0.0, 450.0, print)


def test_a_budget_keeps_no_more_than_its_trials_need(tmp_path: Path) -> None:
    search = Search(open_ledger(tmp_path, trials=9)[0])
    alone, two = refit_time(search), refit_time(search, lanes=2)
    assert alone.reserved(search.plan.pace) == 0.0, "nothing is known yet"
    for kept in (120.0, 240.0, 360.0, 360.0):
        search.complete()
        assert alone.reserved(search.plan.pace) == pytest.approx(kept)
    assert two.reserved(search.plan.pace) == pytest.approx(240.0)  # two rounds of two
    few = refit_time(search, refit=2)
    assert few.reserved(search.plan.pace) == pytest.approx(240.0), "what is asked for is kept"


def test_only_complete_trials_count(tmp_path: Path) -> None:
    search = Search(open_ledger(tmp_path, trials=9)[0])
    search.complete()
    search.ledger.end(search.train(1).number, TrialState.PRUNED)
    assert refit_time(search).reserved(search.plan.pace) == pytest.approx(120.0)
    search.train(1)
    assert refit_time(search).reserved(search.plan.pace) == pytest.approx(120.0)
