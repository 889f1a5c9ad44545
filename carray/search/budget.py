"""A study's budget as a person gives it: a time, hours of devices, or money; what lanes cost."""

from __future__ import annotations

import re
from dataclasses import dataclass

from carray.costs import Held
from carray.errors import ConfigError, PlanError
from carray.search.placement.plan import Plan

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
DEVICES = ("gpuh", "cpuh")
NUMBER = r"\d+(?:\.\d+)?"
AMOUNT = re.compile(rf"({NUMBER})\s*([a-z]+)")
HOURS_AND_MINUTES = re.compile(r"(\d+)h([0-5]?\d)(?:min)?")
PRICE = re.compile(rf"({NUMBER})\s*([a-z]{{3}})/(gpuh|cpuh)")
FORMS = (
    "give a time (90s, 25min, 1h30), hours of devices (40gpuh, 8cpuh), or money (60eur, with "
    "--price 2.5eur/gpuh)"
)


@dataclass(frozen=True)
class Price:
    """What an hour of a device costs."""

    amount: float
    currency: str
    unit: str
    """`gpuh` or `cpuh`."""

    @classmethod
    def parse(cls, text: str) -> Price:
        """Read `2.5eur/gpuh`; raises ConfigError where it is nothing of the kind."""
        found = PRICE.fullmatch(text.strip().lower())
        if found is None or not float(found[1]) > 0:
            raise ConfigError(
                f"--price {text!r} must be money for an hour of a device, as in 2.5eur/gpuh or "
                "0.04usd/cpuh"
            )
        return cls(float(found[1]), found[2], found[3])


@dataclass(frozen=True)
class Budget:
    """What a call may spend, refits included."""

    text: str
    amount: float
    unit: str
    """`s`, `gpuh`, `cpuh` or a currency."""
    price: Price | None = None

    @classmethod
    def parse(cls, text: str, price: Price | None = None) -> Budget:
        """Read `25min`, `1h30`, `40gpuh` or `60eur`.

        Raises:
            ConfigError: it is none of these, or money without a price in the same currency.
        """
        amount, unit = _amount(text)
        if len(unit) == 3 and unit not in SECONDS:
            if price is None:
                raise ConfigError(
                    f"--budget {text} is read as money, which needs --price 2.5{unit}/gpuh; a time "
                    "is 90s, 25min, 1h30 or 2d"
                )
            if price.currency != unit:
                raise ConfigError(
                    f"--budget {text} is in {unit} and --price in {price.currency}: give one "
                    "currency"
                )
        return cls(text, amount, unit, price)

    def seconds(self, plan: Plan) -> float:
        """Return for how long it pays for the plan's lanes.

        Raises:
            PlanError: it counts devices that the plan has none of.
        """
        if self.unit == "s":
            return self.amount
        hours, unit = self.amount, self.unit
        if unit not in DEVICES and self.price is not None:
            hours, unit = self.amount / self.price.amount, self.price.unit
        return 3600 * hours / _devices(plan, unit, f"--budget {self.text}")


def held_by_lane(plan: Plan, price: Price | None = None) -> Held:
    """Return what one of the plan's lanes holds, and what that costs an hour.

    Raises:
        PlanError: the price is of devices that the plan has none of.
    """
    gpus, cpus = plan.workers * plan.gpus_per_worker, plan.workers * plan.cpus_per_worker
    if price is None:
        return Held(gpus=gpus, cpus=cpus)
    count = _devices(plan, price.unit, "--price") / plan.lanes
    return Held(gpus=gpus, cpus=cpus, hourly=count * price.amount, currency=price.currency)


def _devices(plan: Plan, unit: str, asked: str) -> float:
    """Return how many GPUs, or CPUs, all lanes hold."""
    count = plan.total_gpus if unit == "gpuh" else plan.total_cpus
    if not count:
        raise PlanError(f"{asked} counts hours of GPUs and the plan has none; count cpuh, or time")
    return count


def _amount(text: str) -> tuple[float, str]:
    """Return an amount in seconds, hours of devices or money, and its unit."""
    wanted = text.strip().lower()
    if both := HOURS_AND_MINUTES.fullmatch(wanted):
        return 3600.0 * int(both[1]) + 60.0 * int(both[2]), "s"
    found = AMOUNT.fullmatch(wanted)
    amount, unit = (float(found[1]), found[2]) if found else (0.0, "")
    if unit in SECONDS:
        amount, unit = amount * SECONDS[unit], "s"
    if not amount > 0 or not (unit == "s" or unit in DEVICES or len(unit) == 3):
        raise ConfigError(f"--budget {text!r} can't be read: {FORMS}")
    return amount, unit
