"""What replays are worth: regret, how much sooner than random search, and what to do next.

Regret of a data set is 0 at the best trial known of it and 1 at the median one, both trained to
their end; the best known is the best of a pool of random trials and of all replays. It is averaged
over data sets first; spreads are over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from carray.lab.methods import BASELINE, SHIPPED, Method
from carray.search.recorded import Floats

if TYPE_CHECKING:
    from carray.lab.replay import LabRequest

CHECKPOINTS = (5, 10)  # full trainings after which regret is told, besides the whole budget
GRID = 52  # points of a regret curve in one full training: curves of any length compare
CLEARLY = 2.0  # standard errors by which another method must lead before it is proposed


@dataclass(frozen=True)
class Replays:
    """Every replay on one data set."""

    name: str
    max_epochs: int
    best: npt.NDArray[np.float32]
    """(methods, seeds, epochs of the budget): the lowest loss seen so far."""
    best_known: float
    median: float


@dataclass(frozen=True)
class MethodScore:
    """One method over all data sets and seeds."""

    method: Method
    regret: dict[int, float]
    """{full trainings spent: mean regret}."""
    spread: dict[int, float]
    """The same, standard deviation over seeds."""
    sooner: float | None
    """Budget over what this method needs to reach what the baseline ends with; None: never."""
    sooner_low: float | None
    sooner_high: float | None
    """Tenth and ninetieth percentile over seeds."""
    mean_regret: float
    """Over the whole budget: what counts for a study of unknown length."""


@dataclass(frozen=True)
class Proposal:
    """What the next study should do."""

    method: Method
    gain: float
    """Mean regret that it saves against what is shipped."""
    gain_error: float
    """Standard error of the gain, over seeds."""
    clear: bool
    """Whether the gain is more than `CLEARLY` standard errors; if not, keep what is shipped."""


@dataclass(frozen=True)
class LabResult:
    """All scores of one call."""

    scores: tuple[MethodScore, ...]
    proposal: Proposal
    data_sets: tuple[str, ...]
    seeds: int
    budget: int
    lanes: int

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        rows = [{"name": s.method.name, **asdict(s)} for s in self.scores]
        proposal = {"name": self.proposal.method.name, **asdict(self.proposal)}
        return {**asdict(self), "scores": rows, "proposal": proposal}


def score(methods: Sequence[Method], replays: Sequence[Replays], request: LabRequest) -> LabResult:
    """Score methods on their replays."""
    curves = np.mean([_regrets(replay, request.budget) for replay in replays], axis=0)
    target = float(curves[methods.index(BASELINE), :, -1].mean())
    marks = [*(mark for mark in CHECKPOINTS if mark < request.budget), request.budget]
    scores = tuple(
        _score(method, own, target, marks) for method, own in zip(methods, curves, strict=True)
    )
    return LabResult(
        scores=scores,
        proposal=_propose(methods, curves),
        data_sets=tuple(replay.name for replay in replays),
        seeds=request.seeds,
        budget=request.budget,
        lanes=request.lanes,
    )


def _regrets(replay: Replays, budget: int) -> Floats:
    """Return regrets on the common grid, (methods, seeds, budget * GRID)."""
    at = np.arange(1, budget * GRID + 1) * replay.max_epochs // GRID
    losses = np.asarray(replay.best, np.float64)[:, :, np.maximum(at, 1) - 1]
    best = min(replay.best_known, float(losses.min()))
    width = max(replay.median - best, 1e-12)
    regrets: Floats = (losses - best) / width
    return regrets


def _score(method: Method, own: Floats, target: float, marks: Sequence[int]) -> MethodScore:
    each = [_sooner(curve, target) for curve in own]
    low, high = np.percentile([value or 0.0 for value in each], (10, 90))
    return MethodScore(
        method=method,
        regret={mark: float(own[:, mark * GRID - 1].mean()) for mark in marks},
        spread={mark: float(own[:, mark * GRID - 1].std()) for mark in marks},
        sooner=_sooner(own.mean(axis=0), target),
        sooner_low=float(low) or None,
        sooner_high=float(high) or None,
        mean_regret=float(own.mean()),
    )


def _sooner(curve: Floats, target: float) -> float | None:
    """Return the budget over the part of it after which `curve` is at `target`; None: never."""
    reached = np.flatnonzero(curve <= target + 1e-12)
    return len(curve) / (int(reached[0]) + 1) if reached.size else None


def _propose(methods: Sequence[Method], curves: Floats) -> Proposal:
    """Compare with what is shipped, with starting points where the best has some."""
    means = curves.mean(axis=2)  # (methods, seeds)
    best = int(means.mean(axis=1).argmin())
    shipped = Method(SHIPPED.sampler, SHIPPED.scheduler, starts=methods[best].starts)
    gains = means[methods.index(shipped)] - means[best]
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else float("inf")
    gain = float(gains.mean())
    clear = gain > CLEARLY * error
    return Proposal(methods[best] if clear else shipped, gain, error, clear)
