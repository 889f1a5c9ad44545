"""The numbers of a request that mean nothing, refused before anything starts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from carray.errors import ConfigError
from carray.search.plan import check_counts

if TYPE_CHECKING:
    from carray.search.opening import StudyRequest
    from carray.search.space import SearchSpace

MOST_SEED = 2**30  # each trial adds its number, and a trial's own ends at 2**31


def check_numbers(request: StudyRequest) -> None:
    """Refuse counts and amounts out of their range; NaN is in none.

    Raises:
        ConfigError: one is.
        PlanError: one of those that the plan counts with is.
    """
    check_counts(request.workers_per_trial, request.concurrent)
    gpus, seconds = request.gpus_per_trial, request.time_budget_seconds
    for option, value, least, most in (
        ("--trials", request.trials, 1, math.inf),
        ("--refit", request.refit, 0, math.inf),
        ("--seed", request.seed, 0, MOST_SEED),
        ("--disk-budget", request.disk_budget_gib, 0, math.inf),
        ("--gpus-per-trial", None if isinstance(gpus, str) else gpus, 0, math.inf),
    ):
        if value is not None and not least <= value <= most:
            upto = f" and at most {most}" if most < math.inf else ""
            raise ConfigError(f"{option} {value} must be at least {least}{upto}")
    for option, amount in (
        ("--time-budget", None if seconds is None else seconds / 60),
        ("--place-timeout", request.place_timeout_seconds),
        ("--cpus-per-worker", request.cpus_per_worker),
    ):
        if amount is not None and not amount > 0:
            raise ConfigError(f"{option} {amount:g} must be above 0")


def check_refits(space: SearchSpace, epochs: int) -> None:
    """Refuse refits of so many epochs where a trial of the space can't have them.

    Raises:
        ConfigError: its warm-up is longer, say.
    """
    try:
        space.with_fixed({"epochs": epochs})
    except ConfigError as error:
        raise ConfigError(f"--refit-epochs {epochs}: {error}") from None
