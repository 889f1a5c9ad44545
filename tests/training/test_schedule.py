"""Learning rates by step."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
import torch

from carray import metrics
from carray.config import ScheduleConfig
from carray.training.schedule import RESTART, Plateau, lr_factor, set_lr

EPOCHS, STEPS = 4, 10


def factors(**changes: object) -> list[float]:
    schedule = ScheduleConfig.model_validate(changes)
    return [lr_factor(schedule, step, STEPS, EPOCHS) for step in range(EPOCHS * STEPS)]


def test_cosine_goes_from_the_peak_to_the_floor() -> None:
    values = factors(name="cosine", min_lr_ratio=0.05)
    assert values[0] == 1
    assert values[-1] == pytest.approx(0.05)
    assert values[20] == pytest.approx((1 + 0.05) / 2, abs=0.03)
    assert all(a >= b for a, b in pairwise(values))


def test_warm_up_rises_linearly_to_the_peak() -> None:
    values = factors(name="cosine", warmup_epochs=1.5)
    assert values[0] == pytest.approx(0.01)
    rises = [b - a for a, b in pairwise(values[:16])]
    assert rises == pytest.approx([0.99 / 15] * 15)
    assert values[15] == 1
    assert values[-1] == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["cosine", "one_cycle"])
def test_a_continued_schedule_ends_and_begins_again_from_half_the_peak(name: str) -> None:
    values = factors(name=name, min_lr_ratio=0.05, restart_after=2)
    short = ScheduleConfig.model_validate({"name": name, "min_lr_ratio": 0.05})
    assert values[:20] == [lr_factor(short, step, STEPS, 2) for step in range(20)]
    assert values[19] == pytest.approx(0.05)
    assert values[20] == RESTART == 0.5
    assert all(a >= b for a, b in pairwise(values[20:]))
    assert values[-1] == pytest.approx(0.05)


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_a_schedule_without_an_end_has_none_to_begin_again(name: str) -> None:
    assert factors(name=name, restart_after=2) == factors(name=name)


def test_one_cycle_rises_then_falls() -> None:
    values = factors(name="one_cycle", min_lr_ratio=0.01)
    assert values[0] == pytest.approx(0.04)
    assert values.index(max(values)) == 12
    assert max(values) == 1
    assert values[-1] == pytest.approx(0.01)


def test_one_cycles_rise_may_be_given() -> None:
    values = factors(name="one_cycle", warmup_epochs=2)
    assert values.index(max(values)) == 20


def test_a_cosine_may_end_early_and_stays_at_its_floor() -> None:
    values = factors(name="cosine", decay_epochs=1, min_lr_ratio=0.05)
    assert values[0] == 1
    assert set(values[9:]) == {0.05}
    assert values[8] > 0.05


def test_wsd_stays_at_the_peak_and_comes_down_at_the_end() -> None:
    values = factors(name="wsd", warmup_epochs=1, decay_epochs=1, min_lr_ratio=0.0)
    assert set(values[10:31]) == {1.0}
    assert values[-1] == 0
    assert values[34] == pytest.approx(1 - (4 / 9) ** 0.5)
    assert factors(name="wsd")[:33] == [1.0] * 33, "the last fifth, where nobody says"
    assert factors(name="wsd")[33] < 1


def test_steps_multiply_the_rate_down_to_the_floor() -> None:
    values = factors(name="step", step_epochs=1, step_factor=0.1, min_lr_ratio=0.005)
    assert values[::10] == pytest.approx([1, 0.1, 0.01, 0.005])
    assert [len(list(group)) for _, group in groupby(factors(name="step"))] == [14, 14, 12]


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_others_stay_at_the_peak_by_step(name: str) -> None:
    assert set(factors(name=name)) == {1.0}


def test_a_trial_of_one_step_is_at_the_peak() -> None:
    assert lr_factor(ScheduleConfig(), 0, 1, 1) == 1


def test_plateau_lowers_the_lr_after_epochs_without_progress() -> None:
    schedule = ScheduleConfig(
        name="plateau", plateau_patience=1, plateau_factor=0.5, min_lr_ratio=0.2
    )
    state, told = Plateau(), []
    for value in (1.0, 0.9, 0.95, 0.93, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9):
        state = state.after(schedule, metrics.VAL_LOG_LOSS, value)
        told.append(state.factor)
    assert told == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.2, 0.2, 0.2]


def test_plateau_looks_at_the_direction_of_its_metric() -> None:
    schedule = ScheduleConfig(name="plateau", plateau_patience=0)
    state = Plateau().after(schedule, metrics.VAL_TOP1, 0.5)
    assert state.after(schedule, metrics.VAL_TOP1, 0.6).factor == 1
    assert state.after(schedule, metrics.VAL_TOP1, 0.4).factor == 0.5


def test_only_plateau_remembers() -> None:
    fresh = Plateau()
    assert fresh.after(ScheduleConfig(name="cosine"), metrics.VAL_TOP1, 0.1) is fresh


def test_every_group_keeps_its_own_peak() -> None:
    weight = torch.zeros(1, requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    groups = [{"params": [weight], "peak_lr": 1.0}, {"params": [bias], "peak_lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    set_lr(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.05]
