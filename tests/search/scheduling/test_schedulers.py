"""When trials are stopped: not before their grace is over, and short ones never."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from carray.search.scheduling.schedulers import (
    DEFAULT_SCHEDULER,
    build_scheduler,
    default_grace_epochs,
)
from carray.search.scheduling.trainable import EPOCH, NETWORK_COST
from carray.search_benchmark.methods import methods_for, shipped_method

LOSS = "val/log_loss"


def epochs_of_trials(max_epochs: int, floors: list[float]) -> list[int]:
    """Train trials one after another by the defaults; return how many epochs each got."""
    scheduler = default_scheduler(max_epochs)
    return [
        _epochs(scheduler, number, lambda epoch, floor=floor: floor + 1 / epoch, max_epochs)
        for number, floor in enumerate(floors)
    ]


def default_scheduler(max_epochs: int, ended: Sequence[Any] = ()) -> TrialScheduler:
    return build_scheduler(
        DEFAULT_SCHEDULER,
        metric=LOSS,
        direction="minimize",
        max_epochs=max_epochs,
        grace_epochs=default_grace_epochs(max_epochs),
        ended=ended,
    )


def ended_trial(name: str, losses: Iterable[float], **cost: float) -> SimpleNamespace:
    rows = tuple({LOSS: loss} for loss in losses)
    return SimpleNamespace(name=name, epochs=rows, network_cost=cost)


@dataclass(frozen=True, eq=False)
class Tried:
    trial_id: str
    config: dict[str, Any]


def _epochs(
    scheduler: Any, number: int, loss: Callable[[int], float], max_epochs: int, **cost: float
) -> int:
    trial = Tried(str(number), {NETWORK_COST: cost})
    scheduler.on_trial_add(None, trial)
    alone = SimpleNamespace(get_live_trials=list)
    for epoch in range(1, max_epochs + 1):
        result = {EPOCH: epoch, LOSS: loss(epoch)}
        if scheduler.on_trial_result(alone, trial, result) == TrialScheduler.STOP:
            scheduler.on_trial_complete(None, trial, result)
            return epoch
    scheduler.on_trial_complete(None, trial, result)
    return max_epochs


WORSE_AND_WORSE = [1.0, 2.0, 3.0, 4.0]


def test_one_trial_of_three_passes_a_rung() -> None:
    floors = [*(1.0 + number for number in range(8)), 4.5, 2.5]
    *_, middling, good = epochs_of_trials(52, floors)
    assert middling == 5 < good


def test_a_trial_that_falls_behind_is_stopped_at_the_next_rung() -> None:
    scheduler = default_scheduler(52)
    assert _epochs(scheduler, 0, lambda epoch: 1.0 / epoch, 52) == 52
    assert _epochs(scheduler, 1, lambda epoch: 0.9 / min(epoch, 7), 52) == 10
    assert _epochs(scheduler, 2, lambda epoch: 0.8 / min(epoch, 16), 52) == 40


def test_a_trial_is_judged_by_its_best_epoch_so_far() -> None:
    scheduler = default_scheduler(20)
    assert _epochs(scheduler, 0, lambda epoch: 1.0, 20) == 20
    assert _epochs(scheduler, 1, lambda epoch: 0.9 if epoch == 3 else 2.0, 20) == 20
    assert _epochs(scheduler, 2, lambda epoch: math.nan if epoch < 4 else 1.1, 20) == 5


def test_what_earlier_calls_reached_counts_by_its_best_epoch() -> None:
    losses = [0.9 if epoch == 2 else 2.0 for epoch in range(1, 21)]
    scheduler = default_scheduler(20, [ended_trial("0000", losses)])
    assert _epochs(scheduler, 1, lambda epoch: 1.0, 20) == 5
    assert _epochs(scheduler, 2, lambda epoch: 0.8, 20) == 20


def test_a_trial_that_no_cheaper_one_beats_goes_on() -> None:
    """Trials of the same network are held against each other and against faster ones."""
    scheduler = default_scheduler(20)

    def epochs(number: int, loss: float, latency: float) -> int:
        return _epochs(scheduler, number, lambda epoch: loss, 20, latency=latency)

    assert [epochs(number, 1.0, 9.0) for number in range(3)] == [20, 20, 20]
    assert epochs(3, 2.0, 3.0) == 20, "worse than all, and faster than all"
    assert epochs(4, 2.1, 3.0) == 5, "as fast as the one before, and worse"
    assert epochs(5, 2.1, 6.0) == 5, "slower, and worse"
    assert epochs(6, 1.5, 6.0) == 20, "none as fast is as good"
    assert epochs(7, 1.1, 9.0) == 5


def test_the_median_too_is_that_of_trials_that_cost_no_more() -> None:
    scheduler = build_scheduler("median", metric=LOSS, direction="minimize", max_epochs=9)

    def epochs(number: int, loss: float, latency: float) -> int:
        return _epochs(scheduler, number, lambda epoch: loss, 9, latency=latency)

    assert [epochs(number, 1.0, 9.0) for number in range(3)] == [9, 9, 9]
    assert epochs(3, 2.0, 9.0) == 1, "worse than three that are as fast"
    assert [epochs(number, 2.0, 3.0) for number in (4, 5, 6)] == [9, 9, 9], "faster than those"
    assert epochs(7, 3.0, 3.0) == 1


def test_a_front_is_remembered_by_a_study_that_goes_on() -> None:
    large = ended_trial("0000", [1.0] * 20, latency=9.0)
    small = ended_trial("0001", [2.0] * 20, latency=3.0)
    scheduler = default_scheduler(20, [large, small])
    assert _epochs(scheduler, 2, lambda epoch: 1.9, 20, latency=3.0) == 20
    assert _epochs(scheduler, 3, lambda epoch: 2.1, 20, latency=3.0) == 5


@pytest.mark.parametrize("max_epochs", [1, 6, 8, 12, 14])
def test_a_short_training_is_never_stopped(max_epochs: int) -> None:
    assert epochs_of_trials(max_epochs, WORSE_AND_WORSE) == [max_epochs] * 4


@pytest.mark.parametrize(("max_epochs", "grace"), [(15, 5), (30, 5), (52, 5), (100, 10)])
def test_a_longer_training_is_stopped_after_its_grace(max_epochs: int, grace: int) -> None:
    assert epochs_of_trials(max_epochs, WORSE_AND_WORSE) == [max_epochs, grace, grace, grace]


@pytest.mark.parametrize("max_epochs", [2, 8, 14, 15, 52])
def test_the_lab_compares_the_default_with_stopping_and_without(max_epochs: int) -> None:
    methods = methods_for(max_epochs, with_starts=True)
    assert [m.starts for m in methods if m.shipped] == [False, True]
    assert shipped_method(max_epochs) in methods
    assert any(m.scheduler == "asha" and m.grace_epochs < max_epochs for m in methods)
    assert any(m.scheduler == "none" and m.sampler != "random" for m in methods)
