"""Ways to search that the lab compares: a sampler, a scheduler, and starting points or none."""

from __future__ import annotations

from dataclasses import dataclass, replace

from carray.search.samplers import default_sampler
from carray.search.schedulers import default_grace_epochs

PORTFOLIO_SIZE = 6


@dataclass(frozen=True)
class Method:
    """One way to search; names are those of `carray tune`."""

    sampler: str
    scheduler: str
    reduction_factor: int = 3
    grace_epochs: int = 1
    starts: bool = False
    shipped: bool = False
    """Whether `carray tune` does this where nothing is said."""

    @property
    def name(self) -> str:
        """How tables call it."""
        said = [
            self.sampler.replace("univariate", "uni"),
            "no stopping" if self.scheduler == "none" else self.scheduler,
        ]
        if self.scheduler in ("asha", "hyperband"):
            said.append(f"eta {self.reduction_factor}")
        if self.scheduler in ("asha", "median"):
            said.append(f"grace {self.grace_epochs}")
        return ("starts, " if self.starts else "") + ", ".join(said)


BASELINE = Method("random", "none")  # what everything is measured against


def shipped_method(max_epochs: int, starts: bool = False) -> Method:
    """Return what `carray tune` does on a space without blocks where nothing is said."""
    grace = default_grace_epochs(max_epochs)
    return Method(default_sampler(False), "asha", 3, grace, starts=starts, shipped=True)


def methods_for(max_epochs: int, with_starts: bool) -> list[Method]:
    """Return what the lab compares, for trainings of `max_epochs`; the baseline comes first."""
    later = default_grace_epochs(max_epochs)
    graces = tuple(dict.fromkeys((1, later)))
    plain = [
        BASELINE,
        Method("random", "median", grace_epochs=later),
        *(Method("random", "asha", 3, grace) for grace in graces),
        Method("tpe", "none"),
        *(Method("tpe", "asha", 3, grace) for grace in graces),
        shipped_method(max_epochs),
        Method("tpe", "asha", 4, later),
        Method("tpe", "hyperband"),
    ]
    started = [BASELINE, Method("tpe", "none"), *(Method("tpe", "asha", 3, g) for g in graces)]
    started.append(shipped_method(max_epochs))
    return plain + ([replace(method, starts=True) for method in started] if with_starts else [])
