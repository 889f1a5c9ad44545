"""How long refits are, and what of a budget they get.

Of equal budgets one that tries few configurations and trains the best of them several times as long
brings an ensemble more than one that tries many: `tests/benchmarks/README.md` has the figures.
"""

from __future__ import annotations

from collections.abc import Callable

from carray.search.request import StudyRequest, asked_budget

LENGTH = 2  # a refit's epochs over the search's, where none are given
LENGTH_IN_BUDGET = 4  # within a budget, where so long ones fit
MOST_EPOCHS = 60  # of a refit over `LENGTH` times as long: none that were longer are measured
SHARE = 0.8  # of a budget, for refits and folds: the most


def leaves_refits_open(request: StudyRequest) -> bool:
    """Say whether a budget alone says how many refits there are: as many as fit."""
    return request.refit is None and asked_budget(request) is not None


def refit_lengths(request: StudyRequest, max_epochs: int) -> tuple[int, ...]:
    """Return the epochs that refits may have, the longest first: those asked for, or by default."""
    if request.refit_epochs is not None:
        return (request.refit_epochs,)
    least = LENGTH * max_epochs
    if not leaves_refits_open(request):
        return (least,)
    return tuple(
        dict.fromkeys((max(least, min(LENGTH_IN_BUDGET * max_epochs, MOST_EPOCHS)), least))
    )


def refit_rounds(
    lengths: tuple[int, ...], seconds: Callable[[int], float], budget: float, most: int
) -> tuple[int, int]:
    """Return the epochs of refits, the longest that fit, and how many rounds of them a budget has.

    Args:
        lengths: their epochs, the longest first.
        seconds: that so many epochs take.
        budget: in seconds.
        most: rounds.
    """
    for epochs in lengths:
        each = seconds(epochs)
        if each and (rounds := min(most, int(SHARE * budget / each))):
            return epochs, rounds
    return lengths[-1], 0
