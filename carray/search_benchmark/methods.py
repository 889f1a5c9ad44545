"""Ways to search that the lab compares: a sampler, a scheduler, and starting points or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from carray.errors import ConfigError
from carray.search.sampling.samplers import DEFAULT_SAMPLER
from carray.search.scheduling.schedulers import (
    DEFAULT_REDUCTION_FACTOR,
    DEFAULT_SCHEDULER,
    default_grace_epochs,
)

PORTFOLIO_SIZE = 6

LANES = 4


@dataclass(frozen=True)
class Method:
    """One way to search; names are those of `carray tune`."""

    sampler: str
    scheduler: str
    reduction_factor: int = DEFAULT_REDUCTION_FACTOR
    grace_epochs: int = 1
    starts: bool = False
    shipped: bool = False
    """Whether `carray tune` does this where nothing is said."""

    ends_hopeless: bool = False
    """Whether hopeless trials end besides, as they do in a search."""

    @property
    def name(self) -> str:
        """What tells it from the others of a table with, or without, starting points."""
        words = [
            self.sampler.replace("univariate", "uni"),
            "no stopping" if self.scheduler == "none" else self.scheduler,
        ]
        if self.scheduler in ("asha", "hyperband"):
            words.append(f"eta {self.reduction_factor}")
        if self.scheduler in ("asha", "median"):
            words.append(f"grace {self.grace_epochs}")
        if self.ends_hopeless:
            words.append("hopeless end")
        return ", ".join(words)


BASELINE = Method("random", "none")  # what everything is measured against


def shipped_method(max_epochs: int) -> Method:
    """Return what `carray tune` does where nothing is said."""
    sampler, grace = DEFAULT_SAMPLER, default_grace_epochs(max_epochs)
    return Method(
        sampler,
        DEFAULT_SCHEDULER,
        grace_epochs=min(grace, max_epochs),
        ends_hopeless=True,
        shipped=True,
    )


def methods_for(max_epochs: int, with_starts: bool) -> list[Method]:
    """Return what the lab compares, for trainings of `max_epochs`; the baseline comes first.

    Where the default ends only hopeless trials, ASHA is tried after a third of the epochs.
    """
    shipped = shipped_method(max_epochs)
    stops = shipped.grace_epochs < max_epochs
    own, grace = shipped.sampler, shipped.grace_epochs if stops else max(1, round(max_epochs / 3))
    listed = [
        BASELINE,
        Method("random", "asha", 3, grace),
        Method(own, "none"),
        Method(own, "median", grace_epochs=grace),
        Method(own, "asha", 3, grace),
        Method(own, "asha", 4, grace),
        Method("tpe-univariate", "asha", 3, grace),
        Method("tpe", "asha", 3, grace),
        Method("tpe", "hyperband"),  # of its hundreds of trials, univariate takes thrice the time
    ]
    marked = [replace(m, shipped=replace(m, shipped=True) == shipped) for m in listed]
    plain = list(dict.fromkeys([*marked, shipped]))
    return plain + ([replace(method, starts=True) for method in plain] if with_starts else [])


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """What to replay; the command line's options have the same names."""

    studies: Sequence[str] = ()
    """Names of studies; none and no `lcbench` take the newest."""
    lcbench: Path | None = None
    data_sets: int = 12
    metric: str = "val/log_loss"
    """Of LCBench; a study's own is what it was searched by."""
    seeds: int = 20
    budget: int = 40
    """Full trainings of random search; every other method gets half."""
    lanes: int = LANES
    processes: int = 1
    runs: str | os.PathLike[str] | None = None


def check_counts(request: BenchmarkRequest, *names: str) -> None:
    """Refuse a request where one of these is less than 1.

    Raises:
        ConfigError: it is.
    """
    for name in names:
        if getattr(request, name) < 1:
            raise ConfigError(f"--{name} {getattr(request, name)} must be at least 1")
