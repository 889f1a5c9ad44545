"""Lanes in one process: the real mailbox, the real loop of a rank, and epochs that are looked up.

`FakeLanes` are `Lanes` with threads for worker groups and a `FakeRunner` in `TrialRunner`'s place.
Nothing is trained: an epoch's metrics are a function of the trial's configuration. `Faults` say
what goes wrong, and where: an order fails, stalls, runs out of memory, or takes its lane with it.
"""

from __future__ import annotations

import math
import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from carray import metrics
from carray.config import TrialConfig
from carray.errors import RecordError
from carray.files import remove, write_text
from carray.lanes.depot import Depot, StudyPlaces
from carray.lanes.lane import Lanes, LaneShape
from carray.lanes.lane_rank import LaneRank, Runner
from carray.lanes.memory_guard import LaneMemory
from carray.lanes.messages import LaneOrder
from carray.lanes.sent_files import NodeFolders, SendingRunner
from carray.records import HELD_SPLITS, StudyFolder, TrialFolder
from carray.training.epoch_order import EpochOrder, EpochOutcome
from carray.training.ranks import SoloRanks
from carray.training.stopping import best_epoch, stop_reason
from tests.lanes.local_mailbox import LocalMailbox

CHANCE = math.log(12)  # log-loss of saying the same of every image, with twelve classes
TOO_HIGH = 0.5  # the learning rate from which a trial collapses
WAIT_SECONDS = 30.0  # at most, for what a test expects to come
CORES = 4.0


def epoch_row(config: TrialConfig, epoch: int) -> dict[str, float]:
    """Return a whole row: the loss falls from epoch to epoch, to what the learning rate allows."""
    lr = config.optimizer.lr
    least = 0.3 + 0.3 * abs(math.log10(lr) + 2.3)
    loss = least + (CHANCE - least) * math.exp(-epoch / 2)
    has_collapsed = lr >= TOO_HIGH
    val, train = (2.5 * CHANCE, 1.7 * CHANCE) if has_collapsed else (loss, 0.9 * loss)
    return {
        metrics.TRAIN_LOSS: train,
        metrics.TRAIN_SKILL: 1 - train / CHANCE,
        metrics.VAL_LOG_LOSS: val,
        metrics.VAL_CALIBRATED_LOG_LOSS: val,
        metrics.VAL_TOP1: math.exp(-val),
        metrics.VAL_TOP5: min(1.0, 5 * math.exp(-val)),
        metrics.VAL_MACRO_F1: math.exp(-val),
        metrics.VAL_SKILL: 1 - val / CHANCE,
        metrics.VAL_SPREAD: 0.0 if has_collapsed else 0.95,
        metrics.VAL_LOGIT_STD: 1.0,
        metrics.IMAGES_PER_SECOND: 1000.0,
        metrics.EPOCH_SECONDS: 0.01,
        metrics.DATA_WAIT: 0.1,
        metrics.PEAK_MEMORY_GIB: 0.5,
        metrics.LR: lr,
    }


class LaneLost(BaseException):
    """A rank of the lane has died: no error of the order's, which comes again."""


class LaneGone(BaseException):
    """The lane is gone for good."""


@dataclass
class _Fault:
    act: Callable[[], None]
    kind: str
    trial: int | None
    epoch: int | None
    lane: int | None
    times: float


class Stall:
    """An order that waits: `reached` once it is taken, carried out after `go`."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.go.wait(WAIT_SECONDS), "a test has left an order waiting"


class Faults:
    """What goes wrong with orders; each fault happens as often as it is said to."""

    def __init__(self) -> None:
        self.orders: list[LaneOrder] = []  # those begun, by rank 0 of any lane
        self.free_cores = 0.0
        self.lost_nodes: set[str] = set()  # each lane is on a node of its number
        self.draining: dict[str, float] = {}  # node -> when it goes
        self._planned: list[_Fault] = []
        self._lock = threading.Lock()

    def at(
        self,
        act: Callable[[], None],
        kind: str = "epoch",
        *,
        trial: int | None = None,
        epoch: int | None = None,
        lane: int | None = None,
        times: float = 1,
    ) -> None:
        """Have `act` happen where rank 0 begins such an order; None is any."""
        self._planned.append(_Fault(act, kind, trial, epoch, lane, times))

    def raises(self, error: BaseException, kind: str = "epoch", **where: Any) -> None:
        """Have an order end with `error`."""

        def act() -> None:
            raise error

        self.at(act, kind, **where)

    def stalls(self, kind: str = "epoch", **where: Any) -> Stall:
        """Have an order wait."""
        stall = Stall()
        self.at(stall, kind, **where)
        return stall

    def meet(self, lane: int, order: LaneOrder) -> None:
        """Do what is planned for this order on this lane."""
        with self._lock:
            self.orders.append(order)
            met = [fault for fault in self._planned if _is_met(fault, lane, order)]
            for fault in met:
                fault.times -= 1
        for fault in met:
            fault.act()

    def trained(self) -> list[tuple[int, int]]:
        """Return (trial, epoch) of every order for an epoch that was begun."""
        jobs = [order.job for order in self.orders if order.kind == "epoch"]
        return [(number_of(job), job.epoch) for job in jobs if job]


def number_of(job: EpochOrder) -> int:
    """Return the number of the order's trial."""
    return int(job.trial.rpartition("/")[2])


def _is_met(fault: _Fault, lane: int, order: LaneOrder) -> bool:
    job = order.job
    asked = (order.kind, number_of(job) if job else -1, job.epoch if job else 0, lane)
    wanted = (fault.kind, fault.trial, fault.epoch, fault.lane)
    return fault.times > 0 and all(w in (None, a) for w, a in zip(wanted, asked, strict=True))


class FakeRunner:
    """Carries orders out as `TrialRunner` does, all but the training; idempotent like it."""

    def __init__(
        self, lane: int, rank: int, faults: Faults, study: StudyFolder | None = None
    ) -> None:
        self._lane, self._is_first, self._faults = lane, rank == 0, faults
        self._study = study  # whose labels it makes logits of; the trial's by default

    def run_epoch(self, order: EpochOrder) -> EpochOutcome:
        """Look the epoch up; leave weights if it is the best."""
        self._begin("epoch", order)
        config, epochs = order.config, range(1, order.epoch + 1)
        rows = [epoch_row(config, epoch) for epoch in epochs]
        if self._is_first:
            self._keep(order)
        stop, ending = stop_reason(rows, config)
        is_best = best_epoch(rows, config) == order.epoch
        if is_best and self._is_first:
            TrialFolder(Path(order.folder)).weights_file.write_bytes(b"weights")
        if self._is_first:
            write_text(TrialFolder(Path(order.folder)).checkpoint / "meta.json", str(order.epoch))
        start = f"random:{config.seed}"
        return EpochOutcome(
            rows[-1], is_best, stop, 1000, start, compute=None, hardware=None, ending=ending
        )

    def finish(self, order: EpochOrder) -> None:
        """Leave logits on every held split."""
        self._begin("finish", order)
        folder = TrialFolder(Path(order.folder))
        if not folder.weights_file.exists():
            raise RecordError(f"{order.trial} has no weights in {folder.path}: no epoch ended")
        if self._is_first:
            study = self._study or StudyFolder(folder.path.parents[1])
            folder.write_logits(_logits(study, order.config))
            if not order.keeps_checkpoint:
                remove(folder.checkpoint)

    def _keep(self, order: EpochOrder) -> None:
        """Leave a checkpoint; of a trial that takes one over, its weights too."""
        folder = TrialFolder(Path(order.folder))
        if order.continues and not folder.checkpoint.exists():
            source = TrialFolder(Path(order.continues))
            assert source.checkpoint.exists(), "there is nothing to go on from"
            folder.weights_file.write_bytes(source.weights_file.read_bytes())
        folder.checkpoint.mkdir(exist_ok=True)
        (folder.checkpoint / "state").write_bytes(bytes(3))

    def holds(self, order: EpochOrder) -> bool:
        """It holds nothing."""
        return False

    def release(self) -> None:
        """Hold nothing."""

    def _begin(self, kind: str, order: EpochOrder) -> None:
        if self._is_first:
            self._faults.meet(self._lane, LaneOrder(kind, order))  # type: ignore[arg-type]


def _logits(study: StudyFolder, config: TrialConfig) -> dict[str, Any]:
    """Return logits that are the better the lower the loss of the last epoch is."""
    numbers = np.random.default_rng(config.seed)
    num_classes = max(2, len(study.record().classes))
    sure = 4 * (1 - epoch_row(config, config.epochs)[metrics.VAL_LOG_LOSS] / CHANCE)
    logits = {}
    for split in HELD_SPLITS:
        labels = study.labels(split) if study.labels_file.exists() else np.zeros(4, np.int64)
        right = np.eye(num_classes)[labels]
        logits[split] = sure * right + numbers.normal(size=right.shape)
    return logits


class ThreadRanks:
    """The ranks of one worker group, each in a thread of its own."""

    def __init__(self, rank: int, world_size: int, shared: _Shared) -> None:
        self.rank, self.world_size, self._shared = rank, world_size, shared

    def any(self, flag: bool) -> bool:
        """Say whether `flag` is true on any rank."""
        self._shared.flags[self.rank] = flag
        self._shared.barrier.wait(WAIT_SECONDS)
        found = any(self._shared.flags)
        self._shared.barrier.wait(WAIT_SECONDS)
        return found


class _Shared:
    def __init__(self, world_size: int) -> None:
        self.flags = [False] * world_size
        self.barrier = threading.Barrier(world_size)


@dataclass
class FakeGroups:
    """Worker groups of threads; one that loses a rank is restarted, as Ray Train does."""

    shape: LaneShape
    mailbox: LocalMailbox
    faults: Faults
    start: Callable[[int], None]
    """Called with a lane before each of its groups comes up; raises what ends the lane for good."""
    caches: Mapping[int, Path] = field(default_factory=dict)
    places: StudyPlaces | None = None

    def runner(self, lane: int, rank: int) -> Runner:
        """Return the runner of a rank; one that sends its files where its node is apart."""
        if lane not in self.caches or self.places is None:
            return FakeRunner(lane, rank, self.faults)
        runner = FakeRunner(lane, rank, self.faults, StudyFolder(Path(self.places.study)))
        apart = replace(self.places, nonce="seen-nowhere-here")
        folders = NodeFolders(apart, LocalDepot(self.places), self.caches[lane])
        return SendingRunner(runner, SoloRanks(), folders)

    def run(self, lane: int) -> None:
        """Run a lane's worker group until it is sent home or retires."""
        self.start(lane)
        while self._has_lost_a_rank(lane):
            pass

    def resources(self) -> Sequence[tuple[str, float, float]]:
        """Return CPUs, and as many of them as a test has left free."""
        return [("CPU", self.faults.free_cores, CORES)]

    def lost_nodes(self) -> Collection[str]:
        """Return the nodes that a test has lost."""
        return set(self.faults.lost_nodes)

    def draining_nodes(self) -> Mapping[str, float]:
        """Return the nodes that a test drains."""
        return dict(self.faults.draining)

    def end(self) -> None:
        """They share nothing."""

    def _has_lost_a_rank(self, lane: int) -> bool:
        """Run one worker group to its end; the other ranks of one that lost a rank are let be."""
        incarnation, size = uuid.uuid4().hex, self.shape.num_workers
        shared, ended = _Shared(size), SimpleQueue[BaseException | None]()

        def serve(rank: int) -> None:
            try:
                self.mailbox.arrive(lane, incarnation, str(lane))
                LaneRank(
                    lane=lane,
                    incarnation=incarnation,
                    mailbox=self.mailbox,
                    runner=self.runner(lane, rank),
                    ranks=ThreadRanks(rank, size, shared),  # type: ignore[arg-type]
                    memory=LaneMemory(self.shape.allowed_growth),
                    is_crowded=lambda: False,
                ).serve()
                ended.put(None)
            except BaseException as error:  # whatever it is, the process would be gone
                self.mailbox.forget(incarnation)
                shared.barrier.abort()
                ended.put(error)

        for rank in range(size):
            threading.Thread(target=serve, args=(rank,), daemon=True).start()
        error = next(filter(None, (ended.get() for _ in range(size))), None)
        if isinstance(error, LaneGone):
            raise RuntimeError(str(error))
        return error is not None


@dataclass(frozen=True)
class Fakes:
    """What fake lanes are made with; a test keeps it to say what goes wrong."""

    faults: Faults = field(default_factory=Faults)
    start: Callable[[int], None] = int
    caches: dict[int, Path] = field(default_factory=dict)
    """Of lanes whose nodes see none of the driver's folders."""


class LocalDepot(Depot):
    """The real depot, in this process; see `DepotClient`."""

    def ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the depot."""
        return getattr(self, method)(*arguments)


class FakeLanes(Lanes):
    """Lanes whose mailbox and worker groups live in this process."""

    def __init__(
        self,
        num_lanes: int = 1,
        shape: LaneShape | None = None,
        fakes: Fakes | None = None,
        places: StudyPlaces | None = None,
    ) -> None:
        fakes = fakes or Fakes()
        shape = shape or LaneShape(num_workers=1, cpus_per_worker=1.0)
        mailbox = LocalMailbox(num_lanes)
        self.faults = fakes.faults
        groups = FakeGroups(shape, mailbox, fakes.faults, fakes.start, fakes.caches, places)
        super().__init__(shape, num_lanes, mailbox, groups)
