"""`RefitTime`: what comes after a search takes time of its budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from math import ceil, inf

from carray.config import TrialConfig
from carray.errors import counted
from carray.progress import seconds_text
from carray.records import TrialRecord, TrialState
from carray.search.extension import worth_continuing
from carray.search.ledger import Ledger
from carray.search.placement.plan import Plan
from carray.search.request import fold_trials, refit_count
from carray.search.scheduling.refits import (
    Refit,
    enough_refits,
    fewest,
    leaves_refits_open,
    refit_rounds,
    shorter_lengths,
    wanted_refits,
)
from carray.search.scheduling.time_plan import Pace
from carray.search.setup import StudySetup
from carray.search.warm_start.known_recipes import refit_config


class RefitTime:
    """How long refits, folds and continued trials take, and how many fit before a deadline.

    Args:
        plan: of the lanes that they get.
        begun: when the budget began, by the monotonic clock.
        deadline: when it ends; None without one.
        say: tells the user that not all fit.

    Attributes:
        pace: of this call's epochs, those of its drivers.
    """

    def __init__(
        self,
        setup: StudySetup,
        ledger: Ledger,
        plan: Plan,
        begun: float,
        deadline: float | None,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._setup, self._ledger, self._lanes = setup, ledger, plan.lanes
        self._begun, self._deadline, self._clock = begun, deadline, clock
        self._say, self._said = say, set[tuple[str, int]]()
        self._shorter = shorter_lengths(setup.request, setup.study.max_epochs)
        self._enough = enough_refits(setup.request, setup.space)
        self._configs: dict[tuple[int, int], TrialConfig] = {}
        self.pace = Pace(ledger.records + ledger.refits)

    @cached_property
    def worth(self) -> list[TrialRecord]:
        """Trials that are worth more epochs; further ones of the search have as many already."""
        return worth_continuing(self._setup.study, self._ledger.records, self._ledger.members)

    def reserved(self, pace: Pace, soon: bool = False) -> float:
        """Return how long all of it will take, in seconds; `soon` is once a trial is complete.

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
            return max(pace.seconds(self._config(r, epochs), epochs) or 0.0 for r in best)

        again = ceil(refits / self._lanes) * seconds(lengths[0])
        if leaves_refits_open(request) and self._deadline is not None:
            # with none that is complete, what would be kept for its refit would end the first
            is_complete = any(r.state is TrialState.COMPLETE for r in self._ledger.records)
            most = ceil(refits / self._lanes) if is_complete or soon else 0
            budget = self._deadline - self._begun
            asked = self._lanes, self._shorter, self._enough
            rounds = refit_rounds(lengths, seconds, budget, most, *asked)
            again = sum(map(seconds, rounds))
        again += ceil(len(longer) / self._lanes) * max(longer, default=0.0)
        return again + self._fold_seconds(best[0], pace)

    def planned(self, best: Sequence[TrialRecord]) -> list[Refit]:
        """Return the refits that `refit_rounds` would have, in the time that is left now."""
        lengths, shorter = self._setup.refit_lengths, self._shorter
        for epochs in lengths:
            wanted = self._wanted(best, epochs)
            count = self.count_that_fit(wanted)
            if count >= min(fewest(epochs, lengths, self._enough), len(wanted)):
                return wanted[:count]
        begun = wanted[: min(count, self._lanes)]
        further = self._wanted(best, shorter[0]) if shorter else []
        both = begun + [w for w in further if not any(w.is_alike(b) for b in begun)]
        fitting = self._fitting([self._seconds(each) for each in both])
        if shorter and fitting < min(len(begun) + self._enough, len(both)):
            return further[: self._fitting([self._seconds(each) for each in further])]
        return both[:fitting]

    def refits(self, best: Sequence[TrialRecord]) -> Iterator[Refit]:
        """Yield one refit after the other, each the longest that the time left then has room for.

        None is longer than planned. Where no planned length fits, it is one as long as a trial.
        """
        planned = [each.epochs for each in self.planned(best)]
        lengths = (*self._setup.refit_lengths, *self._shorter)
        longest = max(planned, default=max(lengths))
        lengths = tuple(epochs for epochs in lengths if epochs <= longest)
        begun, is_mixed = list[Refit](), len(set(planned)) > 1
        while refit := self._longest(best, lengths, begun):
            begun.append(refit)
            yield refit
            if is_mixed and len(begun) >= planned.count(longest):
                lengths = self._shorter

    def _longest(
        self, best: Sequence[TrialRecord], lengths: Sequence[int], begun: Sequence[Refit]
    ) -> Refit | None:
        """Return the next wanted one of the longest that fit; say why where longer ones don't."""
        left, lacking = self._left(), ""
        for epochs in lengths:
            wanted = self._wanted(best, epochs)
            refit = next((w for w in wanted if not any(w.is_alike(b) for b in begun)), None)
            if refit is None:
                continue
            needed = self._seconds(refit)
            length = f"{counted(epochs, 'epoch')} ({seconds_text(needed)})"
            if needed <= left:
                if lacking:
                    self._say(f"{lacking}: {refit.name}, {length}")
                return refit
            too_little = f"budget: {_time_text(left)} left, too little for {length}"
            lacking = lacking or too_little
        if lacking and begun:
            self._say(too_little)
        return None

    def count_that_fit(
        self,
        wanted: Sequence[Refit],
        taken_over: Callable[[TrialRecord], int] | None = None,
    ) -> int:
        """Return how many of the wanted can be trained before the deadline, and say so.

        Where trials go on instead, `taken_over` says how many of its epochs one has behind it.
        """
        refits = self._ledger.refits
        is_left = [not refit.has_ended(refits) for refit in wanted]
        needed = [self._seconds(each, taken_over and taken_over(each.of)) for each in wanted]
        times = [need if is_open else 0.0 for need, is_open in zip(needed, is_left, strict=True)]
        count = self._fitting(times)
        if count < len(wanted):
            enough = f"enough for {sum(is_left[:count])} of {counted(sum(is_left), 'refit')}"
            if (enough, epochs := wanted[0].epochs) not in self._said:
                left = _time_text(self._left())
                self._say(f"budget: {left} left, {enough} of {seconds_text(max(times))}")
            self._said.add((enough, epochs))
        return count

    def _fitting(self, times: Sequence[float]) -> int:
        """Return how many trainings of such times, in their order, end before the deadline."""
        left = self._left()
        counts = range(1, len(times) + 1)
        return max((n for n in counts if sum(times[: n : self._lanes]) <= left), default=0)

    def _wanted(self, best: Sequence[TrialRecord], epochs: int) -> list[Refit]:
        """Return the refits that are still to be trained, in the order that a budget takes them in.

        Where the call says how many it wants, a longer one is none of them.
        """
        request, refits = self._setup.request, self._ledger.refits
        or_longer = leaves_refits_open(request)
        wanted = wanted_refits(request, best, epochs)
        return [each for each in wanted if not each.has_ended(refits, or_longer=or_longer)]

    def _seconds(self, refit: Refit, taken: int | None = None) -> float:
        """Return what is left of a refit, in seconds; its trial goes on after epoch `taken`."""
        begun = (len(r.epochs) for r in self._ledger.refits if refit.is_same(r))
        left = refit.epochs - max(begun, default=taken or 0)
        config = refit.of.config if taken is not None else self._config(refit.of, refit.epochs)
        return self.pace.seconds(config, left) or 0.0

    def _config(self, of: TrialRecord, epochs: int) -> TrialConfig:
        """Return a trial's refit by its own seed; built once, for every report asks."""
        key = of.number, epochs
        if key not in self._configs:
            self._configs[key] = refit_config(self._setup.space, of, epochs, of.config.seed)
        return self._configs[key]

    def _left(self) -> float:
        """Return the seconds until the deadline, but for those of the folds that come after."""
        if self._deadline is None:
            return inf
        best = self._ledger.best()
        folds = self._fold_seconds(best[0], self.pace) if best else 0.0
        return self._deadline - self._clock() - folds

    def _fold_seconds(self, best: TrialRecord, pace: Pace) -> float:
        """Return how long the best configuration's folds take."""
        rounds = ceil(fold_trials(self._setup.request) / self._lanes)
        return rounds * (pace.seconds(best.config, best.config.epochs) or 0.0)


def _time_text(seconds: float) -> str:
    return seconds_text(max(0.0, seconds))
