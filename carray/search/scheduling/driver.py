"""Runs a study's trials: Ray Tune schedules them, lanes train them, the ledger records them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from carray.costs import TIME_BUDGET, Held
from carray.errors import RESUMES, ClusterError, DiskError
from carray.lanes.lane import Lanes
from carray.lanes.lane_rank import NO_LANE_LEFT, NOT_AT_DRIVER
from carray.lanes.mailbox_client import MAILBOX_ENDED
from carray.lanes.messages import Answer, LaneOrder
from carray.metrics import EPOCH_SECONDS
from carray.records import TrialRecord, TrialState
from carray.search.ledger import INTERRUPTED, Ledger, lacks_logits
from carray.search.scheduling.hopeless import HopelessRule
from carray.search.scheduling.time_plan import Pace, Reserved, TimePlan
from carray.training.epoch_order import RECORD_FACTS, EpochOrder

PROCESSES_DIE = "Ray Tune's own processes die, one trial's after the other's"
SURPASSED = "others are the best now"
MAX_PAUSED_TRIALS = 81


class Driver:
    """Runs a ledger's trials on lanes until it opens no more."""

    def __init__(
        self,
        ledger: Ledger,
        lanes: Lanes,
        data: str,
        on_left: Callable[[TrialRecord], None],
        weights: str | None = None,
        held: Held | None = None,
        say: Callable[[str], None] = lambda text: None,
        pace: Pace | None = None,
    ) -> None:
        self.ledger = ledger
        self.pace = pace or Pace(ledger.records)
        self.lanes = lanes
        self._data = data
        self._weights = weights  # the folder that lanes look for pretrained weights in
        self._on_left = on_left
        self._held = held  # by a lane, for the records
        self._say = say
        self._plan: TimePlan | None = None  # where the search has a deadline
        self._hopeless: HopelessRule | None = None
        self._has_queue = False
        self.early_ends: dict[int, str] = {}  # why trials are being ended, but by the scheduler
        self._open_finishes = 0
        self._all_finished = threading.Condition()
        self._lanes_seen: set[int] = set()
        self._error: Exception | None = None  # the first one that Tune or a thread kept to itself
        self.lane_waits: list[float] = []  # seconds between two trials on a lane, one a trial
        self.without_logits: list[str] = []  # a sentence for each trial that couldn't be finished

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles all that it is given to its cache, which is never read: the ledger is."""
        return {}

    def order(self, record: TrialRecord, epoch: int) -> EpochOrder:
        """Return the order for one epoch of a trial."""
        source = record.refit_of if record.continued_epochs else None
        return EpochOrder(
            trial=record.name,
            folder=str(self.ledger.trial_folder(record.number).path),
            data=self._data,
            config=record.config,
            epoch=epoch,
            weights=self._weights,
            continues=None if source is None else str(self.ledger.trial_folder(source).path),
            keeps_checkpoint=record.keeps_checkpoint,
        )

    def begin(
        self,
        deadline: float | None,
        reserved: Reserved,
        hopeless: HopelessRule | None,
        has_queue: bool,
    ) -> None:
        """Take what bounds a search, and finish what an earlier one has left unfinished."""
        self._hopeless, self._has_queue = hopeless, has_queue
        if deadline is not None:
            lanes = self.lanes.num_lanes
            self._plan = TimePlan(self.ledger, deadline, lanes, reserved, pace=self.pace)
        for record in self.ledger.missing_logits():
            self.close(record)

    @contextlib.contextmanager
    def capturing_errors(self) -> Iterator[None]:
        """Keep what goes wrong, a full disk say: Tune tells it as text, a thread not at all."""
        try:
            yield
        except Exception as error:
            self._error = self._error or error
            raise

    def raise_captured(self) -> None:
        """Raise what a callback couldn't."""
        if self._error is not None:
            raise self._error from None

    def trials_at_once(self) -> int:
        """Return how many trials may be open: one a lane that is there, and lanes come and go.

        Hyperband halves whole brackets, whose paused trials count as open ones.
        """
        if self._has_queue:
            return min(self.ledger.study.trials, MAX_PAUSED_TRIALS)
        return max(1, self.lanes.present())

    def refit(self, records: Iterable[TrialRecord]) -> None:
        """Run trials to their last epoch without a scheduler, each once a lane is free for it."""
        waiting, taking = iter(records), threading.Lock()

        def work() -> None:
            with contextlib.suppress(Exception), self.capturing_errors():
                while not (self._error or self.ledger.is_halted):
                    with taking:
                        record = next(waiting, None)
                    if record is None:
                        return
                    self._refit_one(record)

        threads = [threading.Thread(target=work) for _ in range(self.lanes.num_lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.wait_finished()
        self.raise_captured()

    def give_up(self, records: list[TrialRecord]) -> None:
        """End refits and folds that an earlier call began and nobody asks for any more."""
        for record in records:
            self.close(self.ledger.end(record.number, TrialState.PRUNED, SURPASSED))
        self.wait_finished()

    def abort(self, why: str) -> None:
        """End the search where an order was left undone: a lane's disk is full, say."""
        if why != INTERRUPTED:
            self._error = self._error or self._error_of(why)
            self.ledger.stopped = self.ledger.stopped or why
            # aside: the thread that brings answers must not wait for one
            threading.Thread(target=self.lanes.fail, args=(INTERRUPTED,), daemon=True).start()

    def _error_of(self, why: str) -> Exception:
        is_cluster = why in (MAILBOX_ENDED, PROCESSES_DIE) or NOT_AT_DRIVER in why
        if not is_cluster and not why.startswith(NO_LANE_LEFT):
            return DiskError(why)
        return ClusterError(f"study {self.ledger.study.name!r} is not done: {why}; {RESUMES}")

    def facts(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the record keeps of what a lane told of a trial, and what the lane holds."""
        return {name: outcome[name] for name in RECORD_FACTS} | {"held": self._held}

    def note_wait(self, lane: int, seconds: float) -> None:
        """Note what a lane waited before a trial's first epoch; its own start doesn't count."""
        if lane in self._lanes_seen:
            self.lane_waits.append(seconds)
        self._lanes_seen.add(lane)

    def ask(self) -> TrialRecord | None:
        """Open the next trial; none once the ledger opens no more, or there is no time for one."""
        plan = self._plan
        with self.capturing_errors():
            record = self.ledger.ask(plan.fits) if plan else self.ledger.ask()
        if record is None and not self.ledger.is_full:
            self.ledger.stopped = self.ledger.stopped or TIME_BUDGET
        return record

    def note_epoch(self, record: TrialRecord, seconds: float) -> None:
        """Learn how long a trial's newest epoch took; say once what the budget has room for."""
        if self._plan:
            if self._has_queue:  # where more trials are open than lanes, they wait for each other
                seconds = record.epochs[-1].get(EPOCH_SECONDS, seconds)
            self.pace.note(record.config, len(record.epochs), seconds)
            if sentence := self._plan.sentence(record):
                self._say(sentence)

    def early_end(self, record: TrialRecord, *, is_new: bool) -> str:
        """Say why a trial is ended after its epochs, whatever the scheduler thinks; "" if not.

        A budget ends none before it has brought this call an epoch; `is_new` is one that it has.
        """
        if self.ledger.is_halted:
            return self.ledger.stopped
        if self._hopeless and self._hopeless.ends(record):
            return f"hopeless after epoch {len(record.epochs)}"
        return TIME_BUDGET if is_new and self._plan and self._plan.ends(record) else ""

    def end(self, number: int, state: TrialState, reason: str) -> None:
        """End a trial of the search."""
        with self.capturing_errors():
            record = self.ledger.end(number, state, reason)
            if self._hopeless:
                self._hopeless.learn_from(record)
            self.close(record)

    def close(self, record: TrialRecord) -> None:
        """Have a lane write what an ended trial leaves, then let the observers know."""
        kind = "finish" if record.epochs else "forget"
        job = self.order(record, max(1, len(record.epochs)))
        with self._all_finished:
            self._open_finishes += 1
        asked_at = time.monotonic()
        answered = self.lanes.call(LaneOrder(kind, job))  # type: ignore[arg-type]
        answered.add_done_callback(lambda future: self._closed(record, future, asked_at))

    def wait_finished(self) -> None:
        """Wait until every closed trial has left what it leaves."""
        with self._all_finished:
            self._all_finished.wait_for(lambda: self._open_finishes == 0)

    def _closed(self, record: TrialRecord, future: Future[Answer], asked_at: float) -> None:
        try:
            answer = future.result()
            self.pace.note_finish(time.monotonic() - asked_at)
            if answer.is_undone:
                self.abort(answer.reason)
            else:
                if answer.reason:
                    lacks = lacks_logits(record, self.ledger.trial_folder(record.number))
                    again = "; the same command tries again" if lacks else ""
                    sentence = f"trial {record.name} left no logits: {answer.reason}{again}"
                    self.without_logits.append(sentence)
                with contextlib.suppress(Exception), self.capturing_errors():
                    self.ledger.leave(record.number)
                    self._on_left(record)
        finally:
            with self._all_finished:
                self._open_finishes -= 1
                self._all_finished.notify_all()

    def _refit_one(self, record: TrialRecord) -> None:
        # the last epoch done is answered from its checkpoint: it says if it was the end
        for epoch in range(max(1, len(record.epochs)), record.config.epochs + 1):
            order = LaneOrder("epoch", self.order(record, epoch))
            asked_at = time.monotonic()
            answer = self.lanes.call(order).result()
            if answer.outcome is None:
                if answer.is_undone:
                    self.abort(answer.reason)
                else:
                    ended = self.ledger.end(record.number, TrialState(answer.state), answer.reason)
                    self.close(ended)
                return
            outcome = answer.outcome
            facts = self.facts(outcome.facts())
            if epoch > len(record.epochs):
                self.pace.note(record.config, epoch, time.monotonic() - asked_at)
            record = self.ledger.report(record.number, epoch, outcome.metrics, facts)
            if outcome.stop:
                break
        self.close(self.ledger.end(record.number, TrialState(outcome.ending), outcome.stop))
