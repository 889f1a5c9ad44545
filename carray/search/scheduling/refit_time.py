"""`RefitTime`: what comes after a search takes time of its budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from math import ceil

from carray.progress import seconds_text
from carray.records import TrialRecord, TrialState
from carray.search.extension import worth_continuing
from carray.search.ledger import Ledger
from carray.search.placement.plan import Plan
from carray.search.request import fold_trials, refit_count
from carray.search.scheduling.refits import Refit, leaves_refits_open, refit_rounds
from carray.search.scheduling.time_plan import Pace
from carray.search.setup import StudySetup


class RefitTime:
    """How long refits, folds and continued trials take, and how many fit before a deadline.

    Args:
        plan: of the lanes that they get.
        begun: when the budget began, by the monotonic clock.
        deadline: when it ends; None without one.
        say: tells the user that not all fit.
    """

    def __init__(
        self,
        setup: StudySetup,
        ledger: Ledger,
        plan: Plan,
        begun: float,
        deadline: float | None,
        say: Callable[[str], None],
    ) -> None:
        self._setup, self._ledger, self._lanes = setup, ledger, plan.lanes
        self._begun, self._deadline = begun, deadline
        self._say, self._said = say, set[tuple[str, int]]()

    @cached_property
    def worth(self) -> list[TrialRecord]:
        """Trials that are worth more epochs; further ones of the search have as many already."""
        return worth_continuing(self._setup.study, self._ledger.records, self._ledger.members)

    def reserved(self, pace: Pace) -> float:
        """Return how long all of it will take, in seconds.

        More ranks for each aren't taken to make them faster, which nobody has measured.
        """
        request, epochs = self._setup.request, self._setup.study.max_epochs
        refits, folds = refit_count(request), fold_trials(request)
        best = self._ledger.best()[: max(refits, 1)] or self._ledger.records
        taken = self._ledger.taken_over
        longer = [pace.seconds(r.config, epochs - taken(r)) or 0.0 for r in self.worth]
        if not (refits or folds or longer) or not best:
            return 0.0
        lengths = self._setup.refit_lengths

        def seconds(epochs: int) -> float:
            return max(pace.seconds(record.config, epochs) or 0.0 for record in best)

        again = ceil(refits / self._lanes) * seconds(lengths[0])
        if leaves_refits_open(request) and self._deadline is not None:
            # with none that is complete, what would be kept for its refit would end the first
            is_complete = any(r.state is TrialState.COMPLETE for r in self._ledger.records)
            most = ceil(refits / self._lanes) if is_complete else 0
            budget = self._deadline - self._begun
            length, rounds = refit_rounds(lengths, seconds, budget, most, self._lanes)
            again = rounds * seconds(length)
        whole = pace.seconds(best[0].config, best[0].config.epochs) or 0.0
        others = [(folds, whole), (len(longer), max(longer, default=0.0))]
        return again + sum(ceil(n / self._lanes) * each for n, each in others)

    def count_that_fit(
        self,
        wanted: Sequence[Refit],
        taken_over: Callable[[TrialRecord], int] = lambda record: 0,
    ) -> int:
        """Return how many of the wanted can be trained before the deadline, and say so.

        `taken_over` says how many of its epochs a trial has behind it.
        """
        if self._deadline is None:
            return len(wanted)
        pace, left = Pace(self._ledger.records), self._deadline - time.monotonic()
        refits = self._ledger.refits
        is_left = [not refit.has_ended(refits) for refit in wanted]
        needed = [
            pace.seconds(refit.config, refit.config.epochs - taken_over(refit.of)) or 0.0
            for refit in wanted
        ]
        times = [need if is_open else 0.0 for need, is_open in zip(needed, is_left, strict=True)]
        fitting = [n for n in range(1, len(times) + 1) if sum(times[: n : self._lanes]) <= left]
        count = max(fitting, default=0)
        if count < len(wanted):
            enough = f"enough for {sum(is_left[:count])} of {sum(is_left)} refits"
            if (enough, epochs := wanted[0].config.epochs) not in self._said:
                each = seconds_text(max(times))
                self._say(f"budget: {seconds_text(max(0.0, left))} left, {enough} of {each}")
            self._said.add((enough, epochs))
        return count
