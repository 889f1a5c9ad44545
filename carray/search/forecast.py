"""What a study's last trials brought its ensemble, and what the next ones are expected to bring."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

from carray.costs import SMALL_GAIN, Cost
from carray.predictions.ensemble_gain import ExpectedGain, cross_fitted_loss, expected_gain
from carray.records import TrialRecord
from carray.search.ledger import Ledger
from carray.search.request import Goal

EVERY = 5  # trials


class Forecast:
    """Says every few trials what further ones are worth; opens none where that is too little.

    Losses are log-losses on `val`, of a greedy ensemble that other images have chosen, or of the
    best single trial where that is the goal.
    """

    def __init__(
        self,
        ledger: Ledger,
        goal: Goal,
        stop_below: float | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._ledger = ledger
        self._is_single = goal == "single"
        self._stop_below = stop_below
        self._say = say
        self._told = 0

    def look(self) -> None:
        """Say how it stands, if some trials have ended since; stop the study that has enough."""
        ended = sorted(
            (r for r in self._ledger.records if r.state.is_finished() and r.epochs),
            key=lambda record: record.ended_at or 0.0,
        )
        if len(ended) < self._told + EVERY:
            return
        self._told = len(ended) - len(ended) % EVERY
        rows = self._ledger.members.probabilities(ended)
        expected = expected_gain(rows, EVERY, self._is_single)
        if expected is None:
            return
        losses = [cross_fitted_loss(each, self._is_single) for each in (rows[:-EVERY], rows)]
        brought = losses[0] - losses[1]
        whose = "best" if self._is_single else "ensemble"
        self._say(f"{whose} {forecast_text(brought, expected, ended[-EVERY:])}")
        if self._stop_below is not None and expected.log_loss < self._stop_below:
            self._stop(expected)

    def _stop(self, expected: ExpectedGain) -> None:
        if self._ledger.stopped or self._ledger.is_full:
            return
        self._ledger.stopped = SMALL_GAIN
        self._say(
            f"{SMALL_GAIN}: {expected.log_loss:.4f} is below {self._stop_below:g} "
            "(--stop-when-gain-below); trials that run are finished"
        )


def forecast_text(brought: float, expected: ExpectedGain, last: list[TrialRecord]) -> str:
    """Return the sentence; the next trials cost what the last ones did."""
    count, costs = expected.trials, [record.cost for record in last if record.cost]
    price = f" for {reduce(add, costs, Cost())}" if len(costs) == len(last) else ""
    return (
        f"log-loss: last {count} trials {-brought:+.3f}, next {count} "
        f"{-expected.log_loss:+.3f} +- {expected.deviation:.3f} expected{price}"
    )
