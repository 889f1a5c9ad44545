"""Sentences on a study's best trials: ties, seeds, and how lucky the best is."""

from __future__ import annotations

from carray import metrics
from carray.analysis.leaders import Leaders, Optimism, Repeated
from carray.errors import counted

SHOWN = 3  # configurations that were repeated


def leaders_lines(leaders: Leaders) -> list[str]:
    """Say which trials can't be told from the best, and what other seeds of the leaders reached."""
    ties, others = leaders.ties(), len(leaders.behind)
    name = metrics.SHORT_NAMES[leaders.compared_by]
    what = f"the best by {name} on {counted(leaders.images, 'val image')} (95 %)"
    lines = [f"{len(ties)} of {counted(others, 'other trial')} can't be told from {what}"]
    lines += [repeated_text(each) for each in leaders.repeated[:SHOWN]]
    return lines + ([optimism_text(leaders.optimism)] if leaders.optimism else [])


def repeated_text(repeated: Repeated) -> str:
    """Say what the seeds of one configuration reached."""
    return (
        f"{len(repeated.trials)} seeds of {repeated.trials[0]}'s configuration: "
        f"{repeated.mean:.3f}, standard deviation {repeated.deviation:.3f}"
    )


def optimism_text(optimism: Optimism) -> str:
    """Say how much of the best trial's value is luck of the choice."""
    return (
        f"selection optimism: the best has {optimism.val:.3f} on val, which chose it, and "
        f"{optimism.blend:.3f} on blend: {optimism.value:+.3f} more than others differ on average "
        f"(+- {optimism.deviation:.3f})"
    )


def behind_text(leaders: Leaders | None, trial: str) -> str:
    """Return how far a trial is behind the best, `=` where it can't be told from it."""
    if leaders is None or (trial != leaders.best and trial not in leaders.behind):
        return ""
    if trial == leaders.best:
        return "best"
    behind = leaders.behind[trial]
    tie = "" if behind.excludes_zero() else " ="
    return f"{behind.value:+.3f} [{behind.low:+.3f}, {behind.high:+.3f}]{tie}"
