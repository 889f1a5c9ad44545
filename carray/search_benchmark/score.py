"""Scores simulated searches: regret, share of random search's budget, and a proposal.

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

from carray.search_benchmark.methods import Method
from carray.typing import Float64s

if TYPE_CHECKING:
    from carray.search_benchmark.methods import BenchmarkRequest

CHECKPOINTS = (5, 10)  # full trainings after which regret is told, besides all that there are
GRID = 52  # points of a regret curve in one full training: curves of any length compare
CONFIDENCE = 0.975  # one-sided, that another method leads, before it is proposed


@dataclass(frozen=True)
class MethodRuns:
    """Every replay on one data set."""

    name: str
    max_epochs: int
    best: npt.NDArray[np.float32]
    """(methods, seeds, epochs of half the budget): the lowest loss seen so far."""
    random_ends: npt.NDArray[np.float32]
    """(seeds,): what the baseline finds with the whole budget."""
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
    shares: tuple[float | None, ...]
    """Of each data set: the share of the budget after which half of the seeds have found what half
    of the baseline's find with all of it; None: over half of the budget."""
    share: float | None
    """Median of the shares; None: over half."""
    share_low: float | None
    share_high: float | None
    """Tenth and ninetieth percentile over data sets, or over seeds where there is one."""
    mean_regret: float
    """From the first epoch on: what counts for a study of unknown length."""


@dataclass(frozen=True)
class Proposal:
    """What the next study should do."""

    method: Method
    gain: float
    """Mean regret that choosing so saves against what is shipped, where it was not chosen: each
    data set is judged by the method that is best on the others; a single one, seed by seed."""
    gain_error: float
    """Standard error of the gain."""
    clear: bool
    """Whether the gain is surely one; if not, `method` is what is shipped."""


@dataclass(frozen=True)
class BenchmarkResult:
    """All scores of one call."""

    scores: tuple[MethodScore, ...]
    proposal: Proposal
    data_sets: tuple[str, ...]
    notes: tuple[str, ...]
    """What the curves are, where they aren't what they seem."""
    seeds: int
    budget: int
    """Full trainings of the baseline; every other method had half."""
    lanes: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        rows = [{"name": s.method.name, **asdict(s)} for s in self.scores]
        proposal = {"name": self.proposal.method.name, **asdict(self.proposal)}
        return {**asdict(self), "scores": rows, "proposal": proposal}


def score(
    methods: Sequence[Method],
    replays: Sequence[MethodRuns],
    request: BenchmarkRequest,
    notes: Sequence[str] = (),
) -> BenchmarkResult:
    """Score methods on their replays."""
    half = half_of(request.budget)
    each = np.stack([_regrets(replay, half) for replay in replays])
    needs = np.stack([_needs(replay, request.budget) for replay in replays])
    curves = each.mean(axis=0)  # (methods, seeds, grid)
    marks = [*(mark for mark in CHECKPOINTS if mark < half), half]
    scores = tuple(
        _score(method, curves[number], needs[:, number], marks)
        for number, method in enumerate(methods)
    )
    return BenchmarkResult(
        scores=scores,
        proposal=_propose(methods, each.mean(axis=3)),
        data_sets=tuple(replay.name for replay in replays),
        notes=tuple(notes),
        seeds=request.seeds,
        budget=request.budget,
        lanes=request.lanes,
    )


def _regrets(replay: MethodRuns, budget: int) -> Float64s:
    """Return regrets on the common grid, (methods, seeds, budget * GRID)."""
    at = np.arange(1, budget * GRID + 1) * replay.max_epochs // GRID
    losses = np.asarray(replay.best, np.float64)[:, :, np.maximum(at, 1) - 1]
    best = min(replay.best_known, float(losses.min()), float(replay.random_ends.min()))
    width = max(replay.median - best, 1e-12)
    regrets: Float64s = (losses - best) / width
    return regrets


def half_of(budget: int) -> int:
    """Return the full trainings that a method gets: what needs more than half saves too little."""
    return max(1, budget // 2)


def _needs(replay: MethodRuns, budget: int) -> Float64s:
    """Return the share of the budget after which each replay is where the baseline ends.

    (methods, seeds); that is what half of the baseline's seeds find; infinite: over half.
    """
    reached = replay.best <= _quantile(replay.random_ends, 0.5)
    spent = (reached.argmax(axis=2) + 1) / (budget * replay.max_epochs)
    shares: Float64s = np.where(reached.any(axis=2), spent, np.inf)
    return shares


def _score(method: Method, own: Float64s, needs: Float64s, marks: Sequence[int]) -> MethodScore:
    """Score a method by its regrets, (seeds, grid), and its needs, (data sets, seeds)."""
    shares = _quantile(needs, 0.5, axis=1)
    low, middle, high = _quantile(shares if len(shares) > 1 else needs[0], (0.1, 0.5, 0.9))
    return MethodScore(
        method=method,
        regret={mark: float(own[:, mark * GRID - 1].mean()) for mark in marks},
        spread={mark: float(own[:, mark * GRID - 1].std()) for mark in marks},
        shares=tuple(_finite(share) for share in shares),
        share=_finite(middle),
        share_low=_finite(low),
        share_high=_finite(high),
        mean_regret=float(own.mean()),
    )


def _quantile(values: Any, q: Any, axis: int | None = None) -> Any:
    """Return a quantile that is one of the values: some may be infinite."""
    return np.quantile(values, q, axis=axis, method="inverted_cdf")


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _propose(methods: Sequence[Method], means: Float64s) -> Proposal:
    """Choose by mean regret, (data sets, methods, seeds), and judge that where it wasn't chosen.

    The default that a method is compared with has starting points where the method has some.
    """
    parts = means.mean(axis=2) if len(means) > 1 else means[0].T  # (data sets or seeds, methods)
    shipped = [
        next(n for n, m in enumerate(methods) if m.shipped and m.starts == method.starts)
        for method in methods
    ]
    chosen = (parts.sum(axis=0) - parts).argmin(axis=1)  # on the others
    rows = np.arange(len(parts))
    gains = parts[rows, np.array(shipped)[chosen]] - parts[rows, chosen]
    best = int(parts.mean(axis=0).argmin())
    if len(parts) == 1:
        return Proposal(methods[shipped[best]], 0.0, 0.0, False)
    gain, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))
    from scipy.stats import t

    sure = float(t.ppf(CONFIDENCE, len(gains) - 1)) * error
    clear = gain > max(0.0, sure) and not methods[best].shipped
    return Proposal(methods[best if clear else shipped[best]], gain, error, clear)
