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

from carray.lab.methods import BASELINE, Method
from carray.search.recorded import Floats

if TYPE_CHECKING:
    from carray.lab.replay import LabRequest

CHECKPOINTS = (5, 10)  # full trainings after which regret is told, besides the whole budget
GRID = 52  # points of a regret curve in one full training: curves of any length compare
SURE = 0.975  # one-sided, that another method leads, before it is proposed


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
    needs: float | None
    """Full trainings to reach what the baseline ends with; None: never within the budget."""
    sooner: float | None
    """What the baseline itself needs for it, over `needs`."""
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
    """Standard error of the gain: over seeds, and over data sets where there are several."""
    clear: bool
    """Whether the gain is surely one; if not, `method` is what is shipped."""


@dataclass(frozen=True)
class LabResult:
    """All scores of one call."""

    scores: tuple[MethodScore, ...]
    proposal: Proposal
    data_sets: tuple[str, ...]
    notes: tuple[str, ...]
    """What the curves are, where they aren't what they seem."""
    seeds: int
    budget: int
    lanes: int

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        rows = [{"name": s.method.name, **asdict(s)} for s in self.scores]
        proposal = {"name": self.proposal.method.name, **asdict(self.proposal)}
        return {**asdict(self), "scores": rows, "proposal": proposal}


def score(
    methods: Sequence[Method],
    replays: Sequence[Replays],
    request: LabRequest,
    notes: Sequence[str] = (),
) -> LabResult:
    """Score methods on their replays; the baseline is among them."""
    each = np.stack([_regrets(replay, request.budget) for replay in replays])
    curves = each.mean(axis=0)  # (methods, seeds, grid)
    baseline = curves[methods.index(BASELINE)].mean(axis=0)
    marks = [*(mark for mark in CHECKPOINTS if mark < request.budget), request.budget]
    scores = tuple(
        _score(method, own, baseline, marks) for method, own in zip(methods, curves, strict=True)
    )
    return LabResult(
        scores=scores,
        proposal=_propose(methods, each.mean(axis=3)),
        data_sets=tuple(replay.name for replay in replays),
        notes=tuple(notes),
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


def _score(method: Method, own: Floats, baseline: Floats, marks: Sequence[int]) -> MethodScore:
    target = float(baseline[-1])
    base = _needs(baseline, target)
    assert base is not None
    needs = _needs(own.mean(axis=0), target)
    ratios = [base / found if (found := _needs(curve, target)) else 0.0 for curve in own]
    low, high = (float(value) for value in np.percentile(ratios, (10, 90)))
    return MethodScore(
        method=method,
        regret={mark: float(own[:, mark * GRID - 1].mean()) for mark in marks},
        spread={mark: float(own[:, mark * GRID - 1].std()) for mark in marks},
        needs=needs,
        sooner=base / needs if needs else None,
        sooner_low=low or None,
        sooner_high=high or None,
        mean_regret=float(own.mean()),
    )


def _needs(curve: Floats, target: float) -> float | None:
    """Return the full trainings after which `curve` is at `target`; None: never."""
    reached = np.flatnonzero(curve <= target + 1e-12)
    return (int(reached[0]) + 1) / GRID if reached.size else None


def _propose(methods: Sequence[Method], means: Floats) -> Proposal:
    """Compare with what is shipped, with starting points where the best has some.

    `means` are mean regrets, (data sets, methods, seeds).
    """
    best = int(means.mean(axis=(0, 2)).argmin())
    starts = methods[best].starts
    shipped = next(m for m in methods if m.shipped and m.starts == starts)
    gains = means[:, methods.index(shipped)] - means[:, best]  # (data sets, seeds)
    gain = float(gains.mean())
    parts = [gains.mean(axis=axis) for axis in (0, 1) if gains.shape[1 - axis] > 1]
    error = float(np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)))
    clear = bool(parts) and gain > _surely(min(map(len, parts))) * error
    return Proposal(methods[best] if clear else shipped, gain, error, clear and gain > 0)


def _surely(count: int) -> float:
    """Return how many standard errors make a mean of `count` values sure."""
    from scipy.stats import t

    return float(t.ppf(SURE, count - 1))
