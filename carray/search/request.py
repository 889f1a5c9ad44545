"""`StudyRequest`: the options of a study, and the checks of its numbers."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from carray.errors import ConfigError
from carray.masking import is_secret_name
from carray.search.budget import Budget, Price, held_by_lane
from carray.search.placement.plan import Plan, check_counts
from carray.search.sampling.samplers import DEFAULT_SAMPLER, FOR_SEVERAL
from carray.search.scheduling.schedulers import DEFAULT_REDUCTION_FACTOR
from carray.search.space.space import SearchSpace
from carray.search.space.validation import checked

Goal = Literal["ensemble", "single"]
GOALS: tuple[Goal, ...] = get_args(Goal)
DEFAULT_TRIALS = 30
BUDGET_REFITS = 9  # the most that a call with a budget has, if it doesn't say how many

MOST_SEED = 2**30  # each trial adds its number, and a trial's own ends at 2**31


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """What a study is asked to do; the command line's options have the same names."""

    data: Path | str
    """A prepared data set: its folder or its URL."""
    space: str | None = None
    """A YAML file, or a shipped space's name; None: the named study's own, or what suits the data.
    """
    trials: int | None = None
    name: str | None = None
    runs: str | None = None
    weights: Path | None = None
    """A folder of pretrained weights, looked in before the hub; None: `$CARRAY_WEIGHTS`."""
    max_epochs: int | None = None
    concurrent: int | None = None
    """Trials at once, a lane each; with `min_lanes` more than fit now."""
    min_lanes: int | None = None
    """Lanes to begin with; others are added as nodes join, which Ray's autoscaler is asked for."""
    workers_per_trial: int = 1
    accelerator: str | None = None
    """Take only nodes with this kind of GPU, as Ray names it: `H100`, `A100`, `L4`."""
    gpus_per_trial: float | str | None = None
    """Of all its ranks; `auto` shares a GPU among as many trials as its memory holds."""
    cpus_per_worker: float | None = None
    objectives: tuple[str, ...] = ()
    """A metric, then `latency` or `size`; (): the space's metric, or as the study was begun."""
    sampler: str | None = None
    goal: Goal = "ensemble"
    """What trials are drawn for: the ensemble of all, or the best `single` one."""
    scheduler: str | None = None
    grace_epochs: int | None = None
    reduction_factor: int = DEFAULT_REDUCTION_FACTOR
    time_budget_seconds: float | None = None
    """The same as a `budget` of so many seconds."""
    budget: str | None = None
    """What this call may spend, refits included: `25min`, `40gpuh`, `60eur`."""
    called_at: float | None = None
    """When, by the monotonic clock: a `budget` of time counts from then; None: from its search."""
    price: str | None = None
    """Of an hour of a device: `2.5eur/gpuh`."""
    stop_when_gain_below: float | None = None
    """Open no more trials once the next five are expected to lower the ensemble's log-loss less."""
    command: str = ""
    """The command line that asks, so that the study can say how to go on; "" in Python."""
    refit: int | None = None
    """Train so many of the best again, longer; None: none, or as many as fit into a budget."""
    refit_epochs: int | None = None
    folds: int = 0
    """Train the best configuration on every fold in the end; as many as the data have."""
    top_folds: int = 1
    """How many of the best configurations are trained on folds."""
    fold: tuple[int, ...] = ()
    """These folds alone, by number; (): all of `folds`."""
    address: str | None = None
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    disk_budget_gib: float = 50.0
    storage: str | None = None
    start_from: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    """Names of variables of this process that ranks get too."""
    place_timeout_seconds: float = 300.0
    preflight: bool = False
    """Overfit 32 images with each backbone before the first trial."""


def asked_price(request: StudyRequest) -> Price | None:
    """Read the price that a request names; raises ConfigError where it can't be read."""
    return None if request.price is None else Price.parse(request.price)


def asked_budget(request: StudyRequest) -> Budget | None:
    """Read the budget that a request names.

    Raises:
        ConfigError: it can't be read, or lacks its price, or there are two.
    """
    seconds, price = request.time_budget_seconds, asked_price(request)
    if request.budget is None:
        return None if seconds is None else Budget(f"{seconds:g}s", seconds, "s")
    if seconds is not None:
        raise ConfigError("--budget and --time-budget say the same: give one of them")
    return Budget.parse(request.budget, price)


def check_budget(request: StudyRequest, plan: Plan) -> None:
    """Refuse a budget or a price of devices that the plan has none of; raises PlanError."""
    held_by_lane(plan, asked_price(request))
    if budget := asked_budget(request):
        budget.seconds(plan)


def sampler_name(request: StudyRequest, space: SearchSpace) -> str:
    """Return who draws: whom the request names, or the space, or what did best in the lab."""
    default = FOR_SEVERAL[0] if request.objectives else DEFAULT_SAMPLER
    return request.sampler or space.sampler or default


def asked_folds(request: StudyRequest) -> tuple[int, ...]:
    """Return the numbers of the folds that the best are trained on in the end."""
    return request.fold or tuple(range(request.folds))


def fold_trials(request: StudyRequest) -> int:
    """Return how many trials on folds there are to be."""
    return request.top_folds * len(asked_folds(request))


def refit_count(request: StudyRequest) -> int:
    """Return how many of the best are trained again, longer.

    A budget keeps time for some unless it is told otherwise: where trials are short, longer ones of
    the best lower an ensemble's loss by more than as much time of further trials does.
    """
    if request.refit is not None:
        return request.refit
    return BUDGET_REFITS if asked_budget(request) else 0


def check_numbers(request: StudyRequest) -> None:
    """Refuse counts and amounts out of their range; NaN is in none.

    Raises:
        ConfigError: one is.
        PlanError: one of those that the plan counts with is.
    """
    asked_budget(request)
    check_variables(request.env)
    check_counts(request.workers_per_trial, request.concurrent, request.min_lanes)
    if request.goal not in GOALS:
        raise ConfigError(f"--goal {request.goal!r} must be {' or '.join(GOALS)}")
    gpus, seconds = request.gpus_per_trial, request.time_budget_seconds
    for option, value, least, most in (
        ("--trials", request.trials, 1, math.inf),
        ("--refit", request.refit, 0, math.inf),
        ("--top-folds", request.top_folds, 1, math.inf),
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
        ("--stop-when-gain-below", request.stop_when_gain_below),
    ):
        if amount is not None and not amount > 0:
            raise ConfigError(f"{option} {amount:g} must be above 0")

    _check_pairs(request)


def _check_pairs(request: StudyRequest) -> None:
    """Refuse options that say something of refits or folds where there are to be none."""
    if request.refit_epochs is not None and not refit_count(request):
        raise ConfigError(
            f"--refit-epochs {request.refit_epochs} says how long refits are, and there are to be "
            "none: give --refit K too"
        )
    if request.top_folds > 1 and not asked_folds(request):
        raise ConfigError(
            f"--top-folds {request.top_folds} says how many are trained on folds, and there are to "
            "be none: give --folds K too"
        )


def check_variables(names: Sequence[str]) -> None:
    """Refuse variables that can't reach ranks, or had better not.

    Raises:
        ConfigError: one isn't set here, or holds a secret.
    """
    for name in names:
        if is_secret_name(name.partition("=")[0]):
            raise ConfigError(
                f"--env {name.partition('=')[0]} holds a secret, which Ray would write to its "
                "logs: set it where `ray start` runs, on every node"
            )
        if name not in os.environ:
            raise ConfigError(f"--env {name} must name a variable that is set here: export it")


def check_refits(space: SearchSpace, epochs: int, fewest: int) -> None:
    """Refuse refits of so many epochs where a trial of the space can't have them.

    Args:
        fewest: epochs that a refit must have.

    Raises:
        ConfigError: its warm-up is longer, say, or they are fewer.
    """
    try:
        checked(space.with_fixed({"epochs": epochs}))
    except ConfigError as error:
        raise ConfigError(f"--refit-epochs {epochs}: {error}") from None
    if epochs < fewest:
        raise ConfigError(
            f"--refit-epochs {epochs}: a trial has as many already, so none would be trained "
            f"again: give {fewest} or more"
        )
