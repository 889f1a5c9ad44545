"""What a deadline has room for, on a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from carray.config import TrialConfig, build_config
from carray.metrics import EPOCH_SECONDS
from carray.records import TrialRecord, TrialState
from carray.search.ledger import Ledger
from carray.search.scheduling.time_plan import Pace, Reserved, TimePlan
from tests.search.test_ledger import open_ledger, optuna_trial, row

SLOW = build_config({"backbone": "resnet50"})
EPOCH = 10.0  # seconds
NO_ROOM: Callable[[TrialConfig, int], bool] = lambda config, epochs: False  # noqa: E731


@dataclass
class Search:
    """A search of trials of three epochs, with a hundred seconds."""

    ledger: Ledger
    now: float = 0.0
    plan: TimePlan = field(init=False)

    def __post_init__(self) -> None:
        self.plan = TimePlan(self.ledger, 100.0, 1, clock=lambda: self.now)

    def train(self, epochs: int, loss: float = 1.0, seconds: float = EPOCH) -> TrialRecord:
        """Open a trial and train it for some epochs, each a little better."""
        record = self.ledger.ask()
        assert record is not None
        for epoch in range(1, epochs + 1):
            self.now += seconds
            record = self.ledger.report(record.number, epoch, row(loss - epoch / 100), {})
            self.plan.pace.note(record.config, epoch, seconds)
        return record

    def complete(self, loss: float = 1.0) -> TrialRecord:
        return self.ledger.end(self.train(3, loss).number, TrialState.COMPLETE)


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(open_ledger(tmp_path, trials=9)[0])


def test_a_trial_is_opened_only_where_all_of_it_fits_with_an_epoch_to_spare(search: Search) -> None:
    assert search.plan.fits(SLOW, SLOW.epochs), "nothing is known yet"
    config = search.complete().config
    for now, fits in ((60.0, True), (60.1, False)):
        search.now = now
        assert search.plan.fits(config, config.epochs) is fits
    search.plan.pace.note_finish(5.0)
    search.now = 55.0
    assert not search.plan.fits(config, config.epochs), "leaving logits takes time too"


def test_an_earlier_calls_epochs_do_not_keep_this_one_from_trying(search: Search) -> None:
    config = search.complete().config
    earlier = TrialRecord(study="s", number=0, config=config, epochs=({EPOCH_SECONDS: 60.0},) * 3)
    search.now, pace = 0.0, Pace([earlier])
    plan = TimePlan(search.ledger, 100.0, 1, clock=lambda: search.now, pace=pace)
    assert plan.fits(config, 3), "the machine may have been busy"
    search.now = 50.0
    assert not plan.fits(config, 3), "not an epoch by what is known"
    search.now = 0.0
    pace.note(config, 1, 60.0)
    assert not plan.fits(config, 2)


def test_time_is_kept_for_what_comes_after_but_not_more_than_four_fifths(search: Search) -> None:
    config = search.complete().config
    for reserved in (20.0, 60.0, 1e9):
        search.plan = TimePlan(
            search.ledger, 100.0, 1, lambda pace, soon, s=reserved: s, lambda: 0.0
        )  # type: ignore[misc]
        assert search.plan.left == 100.0 - min(reserved, 80.0)
        assert search.plan.fits(config, config.epochs)


def test_a_shape_that_nobody_has_seen_counts_as_the_slowest_seen() -> None:
    pace = Pace()
    fast, slow, unseen, large = (build_config({"image_size": s}) for s in (64, 128, 96, 256))
    other = build_config({"image_size": 64, "backbone": "resnet10t"})
    further = other.model_copy(update={"image_size": 128})
    assert pace.seconds(fast, 3) is None
    pace.note(fast, 1, 1.0)
    pace.note(slow, 1, 6.0)
    pace.note(slow, 2, 4.0)
    pace.note(other, 1, 2.0)
    seconds = [pace.epoch_seconds(each) for each in (fast, slow, unseen, large, other, further)]
    assert seconds == pytest.approx([1.0, 5.0, 5.0, 20.0, 2.0, 8.0], rel=0.02)


def test_the_newest_epochs_of_any_shape_say_how_busy_the_machine_is() -> None:
    pace = Pace()
    fast, slow = (build_config({"image_size": size}) for size in (64, 128))
    for epoch in range(1, 41):
        pace.note(fast, epoch, 1.0)
        pace.note(slow, epoch, 4.0)
    for epoch in range(1, 11):
        pace.note(fast, epoch, 3.0)
    assert [pace.epoch_seconds(config) for config in (fast, slow)] == pytest.approx([3.0, 12.0])
    for epoch in range(1, 11):
        pace.note(slow, epoch, 4.0)
    assert pace.epoch_seconds(fast) == pytest.approx(1.0), "other work has gone"
    pace.note(slow, 11, 400.0)
    assert pace.seconds(fast, 10) == pytest.approx(10.0 * 100**0.1), "it stood still once"
    for seconds in (1.0, 1.0, 60.0):
        pace.note_finish(seconds)
    assert pace.seconds(fast, 10) == pytest.approx(1.0 + 10.0 * 100**0.1)


def test_what_can_not_end_is_ended_but_for_the_one_that_is_ahead(search: Search) -> None:
    search.complete(loss=1.0)
    ahead, behind = search.train(1, loss=0.8), search.train(1, loss=1.2)
    for now, ends in ((79.0, (False, False)), (81.0, (False, True)), (91.0, (True, True))):
        search.now = now
        assert (search.plan.ends(ahead), search.plan.ends(behind)) == ends


def test_the_one_that_is_ahead_ends_at_the_cost_of_refits_if_it_can(search: Search) -> None:
    search.complete(loss=1.0)
    ahead, behind = search.train(1, loss=0.8), search.train(1, loss=1.2)
    search.plan = TimePlan(
        search.ledger, 100.0, 1, lambda pace, soon: 60.0, lambda: search.now, search.plan.pace
    )
    for now, ends in ((50.0, (False, True)), (79.0, (False, True)), (81.0, (True, True))):
        search.now = now
        assert (search.plan.ends(ahead), search.plan.ends(behind)) == ends


def test_nothing_is_ended_before_its_time_while_no_trial_is_complete(search: Search) -> None:
    first, second = search.train(1, loss=0.8), search.train(1, loss=1.2)
    search.now = 89.0
    assert not search.plan.ends(first)
    assert not search.plan.ends(second)
    search.now = 90.5
    assert search.plan.ends(first)


def test_it_says_once_how_many_trials_fit(search: Search) -> None:
    record = search.train(1)
    assert search.plan.sentence(record) == ""
    record = search.ledger.report(record.number, 2, row(1.0), {})
    said = "budget: 1:30 left, 10.0 s an epoch: room for about 3 of 9 trials"
    assert search.plan.sentence(record) == said
    assert search.plan.sentence(record) == ""


def test_what_refits_will_want_is_none_of_the_room_for_trials(search: Search) -> None:
    reserved: Reserved = lambda pace, soon: 50.0 if soon else 0.0  # noqa: E731
    search.plan = TimePlan(search.ledger, 100.0, 1, reserved, lambda: search.now)
    record = search.train(2)
    assert search.plan.left == 80.0, "no trial is complete"
    said = "budget: 30 s left, 10.0 s an epoch: room for about 1 of 9 trials, and 50 s of refits"
    assert search.plan.sentence(record) == said


def test_a_budget_with_room_for_no_trial_says_so(search: Search) -> None:
    record = search.train(2)
    search.now = 81.0
    said = "budget: 19 s left, 10.0 s an epoch: too little for more of 9 trials than are begun"
    assert search.plan.sentence(record) == said


def test_what_does_not_fit_is_drawn_by_the_next_call(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    assert ledger.ask(NO_ROOM) is None
    assert ledger.records == []
    again, _ = open_ledger(tmp_path)
    record = again.ask()
    assert record is not None
    assert record.config.optimizer.lr == 3e-3, "the starting point"
    assert optuna_trial(again, 0).state.name == "RUNNING"
