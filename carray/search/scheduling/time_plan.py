"""What a budget has room for: which trials are opened, and which end, so that the best one ends.

Everything is measured on the epochs of the study itself, nothing is guessed.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from statistics import fmean, geometric_mean, median

from carray.config import TrialConfig
from carray.errors import counted
from carray.metrics import EPOCH_SECONDS, EpochRow, Objective
from carray.progress import seconds_text
from carray.records import TrialRecord, TrialState
from carray.search.ledger import Ledger
from carray.search.scheduling.refits import SHARE

RECENT = 50  # epochs of a shape, or ends of trials, that a median is taken of
NEWEST = 10  # epochs that say how busy the machine is now: other work on it comes and goes

Shape = tuple[str, int, int]


class Pace:
    """How long epochs take, by what they train (backbone, image size, batch) and today's load.

    An epoch is timed from its order to its answer, so loading, waiting and writing count. Epochs
    of earlier calls, which may have had other lanes, count until this call has one of that shape.
    `tests/benchmarks/README.md` has how near it comes to how long trainings took.
    """

    def __init__(self, records: Sequence[TrialRecord] = ()) -> None:
        self._seen: dict[Shape, list[float]] = {}
        self._before: dict[Shape, list[float]] = {}
        self._newest: deque[tuple[Shape, float]] = deque(maxlen=NEWEST)
        self.longest_epoch = 0.0  # of this call, seconds; a trial's first, with its start, isn't
        self.longest_finish = 0.0  # from a trial's last epoch to its logits, seconds
        self._finishes: deque[float] = deque(maxlen=RECENT)
        for record in records:
            own = record.epochs[record.continued_epochs :]
            seconds = [row[EPOCH_SECONDS] for row in own if EPOCH_SECONDS in row]
            self._before.setdefault(_shape(record.config), []).extend(seconds)

    @property
    def is_measured(self) -> bool:
        """Say whether any epoch is this call's."""
        return bool(self._seen)

    def note(self, config: TrialConfig, epoch: int, seconds: float) -> None:
        """Learn how long 1-based `epoch` of such a trial took."""
        self._seen.setdefault(_shape(config), []).append(seconds)
        self._newest.append((_shape(config), seconds))
        if epoch > 1:
            self.longest_epoch = max(self.longest_epoch, seconds)

    def note_finish(self, seconds: float) -> None:
        """Learn how long it took a trial to leave what it leaves."""
        self.longest_finish = max(self.longest_finish, seconds)
        self._finishes.append(seconds)

    def epoch_seconds(self, config: TrialConfig) -> float | None:
        """Return the median of its shape times the load; None before any epoch.

        Of a shape unseen it is the slowest's of the same backbone and batch, else of all; where
        images are larger, by their pixels.
        """
        typical = self._typical(_shape(config))
        return None if typical is None else typical * self._load()

    def _typical(self, shape: Shape) -> float | None:
        for seen in (self._seen, self._before):
            if own := seen.get(shape):
                return median(own[-RECENT:])
        backbone, size, batch = shape
        known = {other: own for other, own in (self._seen or self._before).items() if own}
        alike = {other: own for other, own in known.items() if other[::2] == (backbone, batch)}
        times = (
            median(own[-RECENT:]) * max(1.0, size / other_size) ** 2
            for (_, other_size, _), own in (alike or known).items()
        )
        return max(times, default=None)

    def _load(self) -> float:
        """Return what the newest epochs took over what epochs of their shapes take.

        The mean is geometric: one epoch that stood still says little of those to come.
        """
        newest = [(seconds, self._typical(shape)) for shape, seconds in self._newest]
        ratios = [seconds / usual for seconds, usual in newest if seconds > 0 and usual]
        return geometric_mean(ratios) if ratios else 1.0

    def seconds(self, config: TrialConfig, epochs: int) -> float | None:
        """Return what so many epochs and the end of such a trial take; None before any epoch."""
        each = self.epoch_seconds(config)
        if each is None:
            return None
        return epochs * each + (median(self._finishes) if self._finishes else 0.0)


Reserved = Callable[[Pace, bool], float]
"""Seconds of what comes after a search, now or once one of its trials is complete."""


class TimePlan:
    """Keeps a search within its deadline, and free of what is reserved for what comes after it."""

    def __init__(
        self,
        ledger: Ledger,
        deadline: float,
        lanes: int,
        reserved: Reserved = lambda pace, soon: 0.0,
        clock: Callable[[], float] = time.monotonic,
        pace: Pace | None = None,
    ) -> None:
        self.pace = pace or Pace(ledger.records)
        self._ledger = ledger
        self._deadline = deadline
        self._lanes = lanes
        self._reserved = reserved
        self._clock = clock
        self._most_reserved = SHARE * (deadline - clock())
        self._has_spoken = False

    @property
    def left(self) -> float:
        """Seconds until the search must have ended, what is reserved taken off."""
        return self._left()

    def _left(self, soon: bool = False) -> float:
        """Return `left` as it is, or as it will be once a trial is complete, which refits want."""
        reserved = min(self._reserved(self.pace, soon), self._most_reserved)
        return self._deadline - self._clock() - reserved

    def fits(self, config: TrialConfig, epochs: int) -> bool:
        """Say whether a trial may be opened: whether the `epochs` to its end can be trained.

        All of them count, though the scheduler ends many a trial early: one that turns out to be
        the best must not be cut off. An epoch and an end, the longest so far, are kept besides,
        because trials take longer than foretold and are ended between epochs only. What takes
        unknown time may be opened while there is any, and before this call's first epoch what an
        earlier one's have room for another of: the machine may have been busy then.
        """
        needed = self.pace.seconds(config, epochs if self.pace.is_measured else 1)
        grace = self.pace.longest_epoch + self.pace.longest_finish
        if needed is None:
            return self.left > 0 or not self._ledger.records
        return needed + grace <= self.left

    def ends(self, record: TrialRecord) -> bool:
        """Say whether a trial is ended after the epochs that `record` has.

        It is where not even another epoch fits. Where its last epoch doesn't, it is too, if there
        is a complete trial and this one isn't ahead of all that have got as far. One that is goes
        on to its end at the cost of what is reserved: refits of worse ones aren't worth more.
        """
        another = self.pace.seconds(record.config, 1)
        rest = self.pace.seconds(record.config, record.config.epochs - len(record.epochs))
        left = self.left
        if another is None or rest is None:
            return left <= 0
        if rest <= left:
            return False
        others = [other for other in self._ledger.records if other.number != record.number]
        has_complete = any(other.state is TrialState.COMPLETE for other in others)
        if has_complete and not is_ahead(record, others, self._ledger.study.objective):
            return True
        return another > left and rest > self._deadline - self._clock()

    def sentence(self, record: TrialRecord) -> str:
        """Say once, after the first epochs, how many trials fit; "" at other times."""
        if self._has_spoken or len(record.epochs) < min(2, record.config.epochs):
            return ""
        self._has_spoken = True
        each, whole = self.pace.seconds(record.config, 1), self._mean_trial_seconds()
        if each is None or whole is None:
            return ""
        wanted = self._ledger.trials_left
        left = max(0.0, self._left(soon=True))
        more = math.floor(left * self._lanes / whole)
        room = f"room for about {min(more, wanted)} of {counted(wanted, 'trial')}"
        room = room if more else f"too little for more of {counted(wanted, 'trial')} than are begun"
        kept = self._deadline - self._clock() - left
        after = f", and {seconds_text(kept)} of refits" if kept >= 1 else ""
        return f"budget: {seconds_text(left)} left, {each:.1f} s an epoch: {room}{after}"

    def _mean_trial_seconds(self) -> float | None:
        """Return what a trial takes on average, stopped ones included."""
        records = self._ledger.records
        ended = [r for r in records if r.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        share = fmean(len(r.epochs) / r.config.epochs for r in ended) if ended else 1.0
        whole = [self.pace.seconds(r.config, r.config.epochs) for r in records]
        return share * fmean(s for s in whole if s is not None) if any(whole) else None


def is_ahead(record: TrialRecord, others: Sequence[TrialRecord], objective: Objective) -> bool:
    """Say whether a trial's best epoch so far beats that of all others that have got as far."""
    done = len(record.epochs)
    own = _best(record.epochs, objective)
    rivals = [
        _best(other.epochs[:done], objective) for other in others if len(other.epochs) >= done
    ]
    return all(own < rival for rival in rivals)


def _best(rows: Sequence[EpochRow], objective: Objective) -> float:
    """Return the best value as a loss."""
    return min(
        (objective.key(row.get(objective.metric, math.nan)) for row in rows), default=math.inf
    )


def _shape(config: TrialConfig) -> Shape:
    return config.backbone, config.image_size, config.device_batch_size
