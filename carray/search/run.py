"""`run_study`: checks a request, plans, starts lanes, searches and refits.

What costs little to check is checked before anything starts; backbones, weights and the tracking
store while the lanes come up, which go again if one is refused. Calling `run_study` again with the
same arguments goes on where the last call ended; with more trials it extends the study.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from typing import Any, NoReturn

from carray.disk import disk_error
from carray.errors import EXIT_GOES_ON, EXIT_INTERRUPTED, RESUMES, ClusterError
from carray.records import StudyFolder, TrialRecord
from carray.runs_folder import RunsFolder
from carray.search.ledger import Ledger
from carray.search.nodes import awaited_plan, study_checks
from carray.search.objectives import NetworkTimer, write_front
from carray.search.observers.console import Board, open_board
from carray.search.observers.mirror import mirrored_study
from carray.search.observers.prometheus import StudyGauges
from carray.search.placement.gpu_sharing import resolve_gpu_share
from carray.search.placement.node_checks import Cluster
from carray.search.placement.plan import Node
from carray.search.placement.ray_cluster import (
    connected,
    has_started_ray,
    lost_error,
    memory_error,
    started_processes,
    starts_ray,
)
from carray.search.placement.ray_nodes import RayCluster
from carray.search.plans import has_nothing_left, has_pending_trials, refit_plan
from carray.search.preflight import preflight
from carray.search.request import StudyRequest, check_budget
from carray.search.session import Session, running_lanes
from carray.search.setup import (
    StudySetup,
    check_classifiers,
    locked_study,
    open_ledger,
    write_files,
)
from carray.search.signals import Bystander, Interrupts, end_at_once
from carray.search.space.validation import check_against_timm
from carray.search.space.weights import check_weights
from carray.search.waiting import waiting_for
from carray.search.watchdog import LANES_ENDED
from carray.tracking import SubprocessTracker, Tracker


def run_study(request: StudyRequest, board: Board | None = None) -> StudyFolder:
    """Run, resume or extend a study; return its folder.

    Raises:
        CarrayError: the request can't be carried out; nothing was started.
        KeyboardInterrupt: it was interrupted; what had finished is kept and used by the next call.
    """
    board = board or open_board()
    interrupts = Interrupts()
    try:
        with interrupts.handled():
            return _run(request, board, interrupts)
    except KeyboardInterrupt as interrupt:
        board.close()
        board.note(f"{str(interrupt) or 'SIGINT'}: ended; {RESUMES}")
        raise
    except Exception as error:
        lacking = disk_error(error, RunsFolder.at(request.runs).path) or memory_error(error)
        if (cause := lacking or lost_error(error)) is None:
            raise
        raise type(cause)(f"the study is not done: {cause}; {RESUMES}") from error
    finally:
        board.close()


def _run(request: StudyRequest, board: Board, interrupts: Interrupts) -> StudyFolder:
    called_at = time.monotonic() if request.called_at is None else request.called_at
    setup = StudySetup.resolve(request)
    if request.preflight and not any(setup.folder.trials()):
        check_against_timm(setup.space)
        check_classifiers(setup)
        preflight(setup.space, setup.manifest.folder, board.note, weights=setup.weights)
    with ExitStack() as stack:
        stack.enter_context(locked_study(setup.folder))
        mirror = stack.enter_context(
            mirrored_study(setup.folder, setup.has_optuna_file, board.note)
        )
        records = setup.folder.records()  # of earlier calls
        folder, study = setup.folder, setup.study
        if has_nothing_left(setup, records):
            _show_complete(folder, records, board)
            return folder
        if study.objectives and has_pending_trials(setup, records):
            check_against_timm(setup.space)
            NetworkTimer(folder, len(study.classes), study.objectives).time_before(setup.space)
        if starts_ray(request.address):  # of a cluster each node is asked
            check_weights(setup.space, setup.weights)
        tracker = SubprocessTracker(setup.runs)
        stack.callback(tracker.abandon)
        checked = _join_cluster(setup, stack, board)
        interrupts.take()
        cluster = RayCluster(request.env)
        checks = study_checks(setup, cluster, board.note)
        gpus = _gpu_share_once(setup, board)
        if request.min_lanes:
            stack.callback(_forget_request, cluster)
        with waiting_for("the check of the nodes", board.note):
            plan = awaited_plan(setup, records, checks, cluster, gpus, board.note)
        for note in setup.notes:
            board.note(note)
        check_budget(request, plan)
        board.plan(plan.lines(setup.study.trials, setup.study.max_epochs), plan.lanes)
        lanes = None
        if has_pending_trials(setup, records):
            begun = running_lanes(plan, setup, checks, lambda: bool(interrupts.name))
            lanes = stack.enter_context(begun)
        with waiting_for("the check of backbones and their weights", board.note):
            own = checked.result()
        for line in own:
            board.note(line)
        with waiting_for("the tracking store", board.note):
            tracker.wait_open()
        write_files(setup)
        observers: list[Tracker] = [board, *([mirror] if mirror else [])]
        observers += [tracker, StudyGauges(setup.study, records)]
        ledger = stack.enter_context(open_ledger(setup, records, observers))
        ledger.say = board.note
        _start(setup, ledger, observers, tracker)
        for line in [] if ledger.records else setup.starts.lines():
            board.note(line)
        board.known(ledger.records + ledger.refits)
        good = [node.resources for node in checks.good()]
        plans = plan, refit_plan(setup, records, good, gpus(good))
        session = Session(setup, plans, ledger, board, interrupts, checks, lanes, called_at)
        if mirror:
            session.on_deleted, mirror.on_taken = mirror.weights_deleted, session.stop
        try:
            session.run()
        finally:
            _end(setup, session.outcome(), observers, time.monotonic() - called_at)
    if mirror:
        mirror.check()
    if interrupts.name:
        raise KeyboardInterrupt(interrupts.name)
    if ledger.stopped == LANES_ENDED:
        raise ClusterError(f"study {setup.study.name!r} is not done: {LANES_ENDED}; {RESUMES}")
    return setup.folder


def _show_complete(folder: StudyFolder, records: Sequence[TrialRecord], board: Board) -> None:
    study = folder.record()
    board.study_started(study)
    board.known(records)
    board.study_ended(study)


def _forget_request(cluster: Cluster) -> None:
    with suppress(Exception):  # the cluster may be gone
        cluster.request([])


def _gpu_share_once(setup: StudySetup, board: Board) -> Callable[[Sequence[Node]], float | None]:
    """Return what says a trial's GPUs by the nodes that there are; it measures them once."""
    known: list[float | None] = []

    def resolve(nodes: Sequence[Node]) -> float | None:
        asked = setup.request.gpus_per_trial
        if not known:
            share = resolve_gpu_share(asked, setup.space, setup.manifest, nodes, board.note)
            known.append(share)
        return known[0]

    return resolve


class _Ending:
    """Ends this process where the Ray of this machine has gone, or is about to."""

    def __init__(self, board: Board) -> None:
        self._board, self._lock = board, threading.Lock()
        self.bystander = Bystander(self._job_terminated)

    def ray_died(self) -> None:
        if self.bystander.was_terminated():
            self._end("SIGTERM: Ray has ended too", EXIT_INTERRUPTED)
        self._end("the study is not done: Ray has died on this machine", EXIT_GOES_ON)

    def _job_terminated(self) -> None:
        if has_started_ray():
            self._end("SIGTERM: Ray ends too", EXIT_INTERRUPTED)

    def _end(self, sentence: str, exit_code: int) -> NoReturn:
        self._lock.acquire()  # who comes second waits for the end
        self._board.last_note(f"{sentence}; {RESUMES}")
        end_at_once(exit_code, started_processes())


def _join_cluster(setup: StudySetup, stack: ExitStack, board: Board) -> Future[list[str]]:
    """Join the cluster; return the check of backbones and weights, which may still be at work."""
    checker = ThreadPoolExecutor(1)
    named = checker.submit(check_against_timm, setup.space)
    others_train = not starts_ray(setup.request.address)
    checked = checker.submit(check_classifiers, setup, others_train)
    ending = _Ending(board)
    stack.enter_context(closing(ending.bystander))
    try:
        with waiting_for("Ray to start", board.note):
            stack.enter_context(connected(setup.request.address, ending.ray_died))
    finally:
        named.result()  # a misspelt name is told first, whatever a cluster says
    return checked


def _start(
    setup: StudySetup, ledger: Ledger, observers: Sequence[Tracker], tracker: Tracker
) -> None:
    """Let the observers know of the study, the tracker of all that it may have missed."""
    folder = setup.folder
    for observer in observers:
        observer.study_started(setup.study, (folder.space_file, folder.labels_file))
    if not folder.record_file.exists() or folder.record().state != "complete":
        ledger.resend(tracker)
    setup.study.write(folder.record_file)


def _end(
    setup: StudySetup,
    outcome: Mapping[str, Any],
    observers: Sequence[Tracker],
    call_seconds: float,
) -> None:
    """Write how the study stands, and let the observers know."""
    seconds = (setup.study.seconds or 0.0) + call_seconds
    study = setup.study.model_copy(update={**outcome, "seconds": seconds})
    file, files = setup.folder.record_file, [setup.folder.record_file]
    try:
        study.write(file)
        files += write_front(setup.folder)
    finally:
        for observer in observers:
            observer.study_ended(study, files)
            observer.close()
