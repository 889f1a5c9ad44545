"""One rank of one lane: it takes orders, carries them out, and acknowledges each only then.

Knows no Ray: its mailbox, its runner and its fellow ranks are given to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from carray.disk import disk_error
from carray.errors import (
    CarrayError,
    ClusterError,
    DataError,
    DiskError,
    StorageError,
    TrialFailed,
    TrialInfeasible,
    UnsuitableData,
    WeightsError,
)
from carray.lanes.messages import Answer, LaneOrder
from carray.lanes.network import network_error
from carray.training.epoch_order import EpochOrder, EpochOutcome

if TYPE_CHECKING:
    from carray.lanes.mailbox_client import MailboxClient
    from carray.lanes.memory_guard import LaneMemory
    from carray.training.ranks import Ranks


NO_LANE_LEFT = "no lane is left that could train"
NOT_AT_DRIVER = "is not at the driver"  # of what a trial left on another node
LOST_GPU = re.compile(  # what torch says of a GPU that is no more, or never was
    r"no CUDA-capable device|No CUDA GPUs are available|no NVIDIA driver|uncorrectable ECC error"
    r"|CUDA error: (unknown error|initialization error|system not yet initialized)"
    r"|CUDA-capable device\(s\) is/are busy|GPU is lost|fallen off the bus",
    re.IGNORECASE,
)


class Runner(Protocol):
    """What carries orders out: `TrialRunner`."""

    def run_epoch(self, order: EpochOrder) -> EpochOutcome:
        """Train and evaluate one epoch."""

    def finish(self, order: EpochOrder) -> None:
        """Write what an ended trial leaves."""

    def release(self) -> None:
        """Free what the trial held."""


@dataclass
class LaneRank:
    """A rank at work; every rank of a lane takes the same orders, and rank 0 answers them."""

    lane: int
    incarnation: str
    """Of the worker group; the same on all of its ranks."""
    mailbox: MailboxClient
    runner: Runner
    ranks: Ranks
    memory: LaneMemory
    is_crowded: Callable[[], bool]
    """Whether others hold memory of the rank's GPU."""

    def serve(self) -> None:
        """Carry out orders until the lane is sent home, retires or leaves for good."""
        try:
            self._serve()
        finally:
            with suppress(Exception):  # what ends it may be a GPU that is no more
                self.runner.release()

    def _serve(self) -> None:
        sequence = 0
        while True:
            sequence, order = self.mailbox.take(self.lane, self.incarnation, sequence)
            if order.kind == "exit":
                return
            answer = self._carried_out(sequence, order)
            if answer is None:
                return
            # Agreed before the answer: once that is there the next order may come, and a rank that
            # has not taken this one yet would never see it, nor what the others agree on after it.
            retires = order.ends_trial and self._retires()
            if self.ranks.rank == 0:
                self.mailbox.answer(self.lane, sequence, answer)
            if retires:
                return

    def _carried_out(self, sequence: int, order: LaneOrder) -> Answer | None:
        """Return the answer to an order; None where another lane carries it out."""
        try:
            return carry_out(self.runner, order)
        except Exception as error:
            answer = answer_to(error, order)
            if self._is_handed_on(sequence, answer, node_fault(error, order)):
                if self.ranks.world_size > 1:
                    raise  # frees the other ranks; those that come back are sent home
                return None
            if self.ranks.world_size > 1 and not _is_agreed(error):
                # The other ranks may wait for this one in a collective: only a new worker group
                # frees them. What can't be helped is told first, else the order comes again.
                if answer.state == "infeasible" or answer.is_undone:
                    self.mailbox.answer(self.lane, sequence, answer)
                else:
                    self.mailbox.note(self.lane, answer.reason)
                raise
            self.runner.release()
            return answer

    def _is_handed_on(self, sequence: int, answer: Answer, fault: str) -> bool:
        """Leave an order to other lanes where its failure is this machine's; say whether it is."""
        if fault:
            return self.mailbox.hand_over(self.lane, sequence, fault)
        if answer.state != "infeasible" or not self.is_crowded():
            return False
        why = f"shared its GPU, whose memory was too small: {answer.reason}"
        return self.mailbox.reassign(self.lane, sequence, why)

    def _retires(self) -> bool:
        exceeds_limit = self.memory.exceeds_limit()
        retires = self.ranks.any(exceeds_limit)
        if exceeds_limit:
            self.mailbox.retire(self.lane, f"grew from {self.memory}")
        return retires


def node_fault(error: Exception, order: LaneOrder) -> str:
    """Return what `error` says of this machine: another may carry the order out; "" if nothing.

    The driver has read the same data, at their URL too, and found the same weights.
    """
    if isinstance(error, ClusterError):
        return ""
    if full := _disk_error(error, order):
        return str(full)
    is_lacking = isinstance(error, DataError | WeightsError | StorageError)
    if is_lacking and not isinstance(error, UnsuitableData):
        return str(error)
    return f"{error}".splitlines()[0] if LOST_GPU.search(str(error)) else ""


def _disk_error(error: Exception, order: LaneOrder) -> DiskError | None:
    folders = (order.job.folder, order.job.data) if order.job else ()
    return disk_error(error, *folders)


def _is_agreed(error: Exception) -> bool:
    """Say whether every rank has raised the same at the same point."""
    from carray.training.compute.out_of_memory import AgreedInfeasible

    return isinstance(error, TrialFailed | AgreedInfeasible)


def carry_out(runner: Runner, order: LaneOrder) -> Answer:
    """Carry one order out on this rank."""
    job = order.job
    assert job is not None
    if order.kind == "epoch":
        return Answer(outcome=runner.run_epoch(job))
    if order.kind == "finish":
        runner.finish(job)
    runner.release()
    return Answer()


def answer_to(error: Exception, order: LaneOrder) -> Answer:
    """Return what to say of an order that came to `error`, where no other lane may try it.

    A full disk, or whatever else this machine lacks, is no fault of the order's trial; nor is a
    driver that can't be reached.
    """
    if isinstance(error, ClusterError):
        return Answer(reason=str(error))
    if full := _disk_error(error, order):
        return Answer(reason=str(full))
    if fault := node_fault(error, order):
        return Answer(reason=f"{NO_LANE_LEFT}: {fault}")
    if isinstance(error, TrialInfeasible):
        return Answer("infeasible", str(error))
    if isinstance(error, CarrayError):
        return Answer("failed", str(error))
    return Answer("failed", network_error(error) or f"{type(error).__name__}: {error}")
