"""Text report of the search benchmark: regret of each way to search, and a proposal."""

from __future__ import annotations

from carray.errors import counted
from carray.reports.table import table
from carray.search_benchmark.ensembles import AHEAD, EnsembleBenchmark, EnsembleScore
from carray.search_benchmark.score import BenchmarkResult, MethodScore, Proposal

OVER = ">50%"


def benchmark_lines(result: BenchmarkResult) -> list[str]:
    """Return what `carray replay-lab` prints."""
    marks = list(result.scores[0].regret)
    regrets = (f"after {mark}:>15" for mark in marks)
    columns = ("search:<34", *regrets, "share:>9", "10-90 %:>12")
    sets = len(result.data_sets)
    over = "data sets" if sets > 1 else "seeds"
    plain = [score for score in result.scores if not score.method.starts]
    started = [score for score in result.scores if score.method.starts]
    lines = table(columns, map(_cells, [*plain, *started]), spare=("10-90 %",))
    return [
        f"{counted(sets, 'data set')}, {counted(result.seeds, 'seed')}, {marks[-1]} full "
        f"trainings each, {result.lanes} at once; * is what `carray tune` does",
        "regret (0: best trial known, 1: median trial) after so many full trainings, +- over seeds",
        f"share: of {result.budget} random full trainings, to find what they find; median {over}",
        *result.notes,
        "",
        *lines[: len(lines) - len(started)],
        *(["with starting points learned from the other data sets:"] if started else []),
        *lines[len(lines) - len(started) :],
        "",
        *proposal_lines(result.proposal),
    ]


def ensemble_lines(result: EnsembleBenchmark) -> list[str]:
    """Return what `carray replay-lab --ensembles` prints."""
    marks = list(result.scores[0].losses)
    columns = ("search:<36", *(f"{counted(mark, 'trial')}:>24" for mark in marks), "best one:>10")
    foretold = result.forecast
    pools = zip(result.pools, result.trials, strict=True)
    return [
        f"{counted(len(result.pools), 'data set')}, {counted(result.seeds, 'seed')}; a "
        "draw takes the nearest trial not taken yet; * is what `carray tune` does",
        "log-loss on val of a greedy ensemble that the other half of the images chose, less random",
        *(f"{count} trials of {name[:80]}" for name, count in pools),
        "",
        *table(columns, map(_ensemble_cells, result.scores)),
        "",
        f"{foretold.count} forecasts of {AHEAD} further random trials: foretold "
        f"{-foretold.foretold:+.4f}, came {-foretold.came:+.4f}; {foretold.within:.0%} came within "
        "the deviation told",
    ]


def _ensemble_cells(score: EnsembleScore) -> tuple[str, ...]:
    name = f"{score.sampler} for the {score.goal}" + (" *" if score.shipped else "")
    less = (
        f"{loss:.4f} {score.less[mark][0]:+.4f}+-{score.less[mark][1]:.4f}"
        for mark, loss in score.losses.items()
    )
    return name, *less, f"{score.single:.4f}"


def proposal_lines(proposal: Proposal) -> list[str]:
    """Return what the next study should do, and how sure that is."""
    method = proposal.method
    options = f"--sampler {method.sampler} --scheduler {method.scheduler}"
    if method.scheduler in ("asha", "hyperband"):
        options += f" --reduction-factor {method.reduction_factor}"
    if method.scheduler in ("asha", "median"):
        options += f" --grace-epochs {method.grace_epochs}"
    start = ["with starting points of the other data sets (--start-from)"] if method.starts else []
    if proposal.clear:
        sentence = (
            f"mean regret {proposal.gain:.3f} +- {proposal.gain_error:.3f} lower than the "
            "default's, where it was not chosen"
        )
    else:
        sentence = (
            "nothing surely beats the default: where it was not chosen, the leader gains "
            f"{proposal.gain:.3f} +- {proposal.gain_error:.3f}"
        )
    return [f"next study: {options}", *start, sentence]


def _cells(score: MethodScore) -> tuple[str, ...]:
    regrets = (f"{score.regret[mark]:.3f} +-{score.spread[mark]:.3f}" for mark in score.regret)
    name = score.method.name + (" *" if score.method.shipped else "")
    spread = f"{_percent(score.share_low)}-{_percent(score.share_high)}"
    return name, *regrets, _percent(score.share), spread


def _percent(share: float | None) -> str:
    if share is None:
        return OVER
    return f"{share:.1%}" if share < 0.0995 else f"{share:.0%}"
