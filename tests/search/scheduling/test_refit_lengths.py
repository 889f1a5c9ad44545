"""What of a budget refits get."""

from __future__ import annotations

import pytest

from carray.search.scheduling.refit_lengths import refit_rounds


@pytest.mark.parametrize(
    ("budget", "kept"),
    [
        (15, 12),  # trainings: three refits four times as long, and three trials before them
        (45, 36),
        (99, 36),  # no more than nine
        (5, 4),
        (4, 2),  # too small for one that is four times as long
        (2, 0),  # or twice
    ],
)
def test_as_many_of_the_longest_as_fit(budget: int, kept: int) -> None:
    epochs, rounds = refit_rounds((32, 16), lambda epochs: epochs / 8, budget, 9)
    assert rounds * epochs / 8 == kept


def test_nothing_is_kept_before_the_first_epoch_is_timed() -> None:
    assert refit_rounds((32, 16), lambda epochs: 0.0, 100.0, 9)[1] == 0
