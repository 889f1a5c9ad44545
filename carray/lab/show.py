"""The lab's table, at most 100 columns."""

from __future__ import annotations

from carray.lab.score import LabResult, MethodScore, Proposal

NAME_WIDTH = 34


def lab_lines(result: LabResult) -> list[str]:
    """Return what `carray replay-lab` prints."""
    marks = list(result.scores[0].regret)
    head = "".join(f"{f'after {mark}':>15}" for mark in marks)
    sets = len(result.data_sets)
    return [
        f"{sets} data set{'s' if sets > 1 else ''}, {result.seeds} seeds, budget "
        f"{result.budget} full trainings, {result.lanes} at once",
        "regret (0: best trial known, 1: median trial) after so many full trainings, +- over seeds",
        "sooner: than random without stopping reaches what it ends with, and 10 to 90 % of seeds",
        *result.notes,
        "",
        f"{'search':<{NAME_WIDTH}}{head}{'sooner':>9}{'10-90 %':>12}",
        *(_row(score, marks) for score in result.scores),
        "",
        *proposal_lines(result.proposal),
    ]


def proposal_lines(proposal: Proposal) -> list[str]:
    """Return what the next study should do, and how sure that is."""
    method = proposal.method
    options = f"--sampler {method.sampler} --scheduler {method.scheduler}"
    if method.scheduler in ("asha", "hyperband"):
        options += f" --reduction-factor {method.reduction_factor}"
    if method.scheduler in ("asha", "median"):
        options += f" --grace-epochs {method.grace_epochs}"
    start = ["with starting points of the other data sets (--start-from)"] if method.starts else []
    gain = f"mean regret {proposal.gain:.3f} +- {proposal.gain_error:.3f} lower than the default's"
    if not proposal.clear:
        gain = f"nothing is clearly better: {gain} at best"
    return [f"next study: {options}", *start, gain]


def _row(score: MethodScore, marks: list[int]) -> str:
    cells = "".join(f"{f'{score.regret[m]:.3f} +-{score.spread[m]:.3f}':>15}" for m in marks)
    low, high = _times(score.sooner_low), _times(score.sooner_high)
    name = score.method.name
    return f"{name:<{NAME_WIDTH}}{cells}{_times(score.sooner):>9}{f'{low}-{high}':>12}"


def _times(ratio: float | None) -> str:
    if ratio is None:
        return "never"
    return f"x{ratio:.1f}" if ratio < 10 else f"x{ratio:.0f}"
