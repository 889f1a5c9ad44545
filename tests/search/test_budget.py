"""Budgets and prices as people give them, and what they are worth on a plan's lanes."""

from __future__ import annotations

import pytest

from carray.costs import Cost, Held
from carray.errors import ConfigError, PlanError
from carray.search.budget import Budget, Price, held_by_lane
from carray.search.placement.plan import Plan

CPUS = Plan(lanes=2, workers=1, cpus_per_worker=2.0, gpus_per_worker=0.0, nodes=1)
GPUS = Plan(lanes=2, workers=4, cpus_per_worker=3.0, gpus_per_worker=1.0, nodes=1)
SHARED = Plan(lanes=4, workers=1, cpus_per_worker=2.0, gpus_per_worker=0.25, nodes=1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("25min", 1500),
        ("1h30", 5400),
        ("1h5", 3900),
        ("1h30min", 5400),
        ("1.5h", 5400),
        ("2 h", 7200),
        ("1d", 86400),
        ("2cpuh", 1800),
    ],
)
def test_times_and_hours_of_devices_are_seconds_of_a_plan(text: str, seconds: float) -> None:
    assert Budget.parse(text).seconds(CPUS) == seconds


def test_gpu_hours_and_money_last_as_long_as_all_lanes_can_be_paid() -> None:
    assert Budget.parse("40gpuh").seconds(GPUS) == 5 * 3600
    assert Budget.parse("40GPUh").seconds(SHARED) == 40 * 3600
    price = Price.parse("2.5eur/gpuh")
    assert Budget.parse("60eur", price).seconds(GPUS) == 3 * 3600
    assert held_by_lane(GPUS, price) == Held(gpus=4.0, cpus=12.0, hourly=10.0, currency="eur")
    assert held_by_lane(CPUS).hourly == 0.0


@pytest.mark.parametrize(
    "text", ["", "25", "25 minutes", "25m", "-5min", "0s", "1h75", "nan", "1e3s", "infs", "5euros"]
)
def test_what_is_no_budget_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(ConfigError, match=r"can't be read: give a time \(90s, 25min, 1h30\)"):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["2.5", "2.5eur", "eur/gpuh", "0eur/gpuh", "2.5eur/h"])
def test_what_is_no_price_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(ConfigError, match=r"as in 2\.5eur/gpuh or 0\.04usd/cpuh"):
        Price.parse(text)


def test_money_needs_a_price_in_its_currency_and_devices_that_are_there() -> None:
    with pytest.raises(ConfigError, match=r"60eur .* needs --price 2\.5eur/gpuh; a time"):
        Budget.parse("60eur")
    with pytest.raises(ConfigError, match="60eur is in eur and --price in usd"):
        Budget.parse("60eur", Price.parse("2usd/gpuh"))
    with pytest.raises(PlanError, match="--budget 4gpuh counts hours of GPUs and the plan has"):
        Budget.parse("4gpuh").seconds(CPUS)
    with pytest.raises(PlanError, match="--price counts hours of GPUs"):
        held_by_lane(CPUS, Price.parse("2usd/gpuh"))


def test_costs_add_up_and_are_told_in_the_device_that_counts() -> None:
    lane = held_by_lane(GPUS, Price.parse("2.5eur/gpuh"))
    assert str(lane.cost(1800) + lane.cost(1800)) == "4 GPU-h, 10.00 eur"
    assert str(held_by_lane(CPUS).cost(900)) == "0.5 CPU-h"
    assert Cost() + lane.cost(1) == lane.cost(1)
