"""A study from question to records: check, plan, lanes, search, refit.

What costs little to check is checked before anything starts; backbones, weights and the tracking
store while the lanes come up, which go again if one is refused. Calling `run_study` again with the
same arguments goes on where the last call ended; with more trials it extends the study.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from carray.data.manifest import Manifest
from carray.disk import disk_error
from carray.errors import RESUMES, PlanError
from carray.records import RunsFolder, StudyFolder
from carray.search.observers.console import Board, open_board
from carray.search.observers.prometheus import StudyGauges
from carray.search.placement.gpu_sharing import resolve_gpu_share
from carray.search.placement.ray_cluster import connected, is_lost, memory_error, nodes
from carray.search.preflight import preflight
from carray.search.request import StudyRequest
from carray.search.session import Session, running_lanes
from carray.search.setup import (
    check_classifiers,
    check_names,
    has_pending_trials,
    locked_study,
    open_ledger,
    open_record,
    plan_study,
    refit_plan,
    resolve_space,
    resolve_starting_points,
    write_files,
)
from carray.search.signals import Interrupts
from carray.search.space.space import SearchSpace
from carray.search.watchdog import LANES_ENDED
from carray.tracking import SubprocessTracker, Tracker
from carray.tracking.sync import say


def run_study(request: StudyRequest, board: Board | None = None) -> StudyFolder:
    """Run, resume or extend a study; return its folder.

    Raises:
        CarrayError: the request can't be carried out; nothing was started.
        KeyboardInterrupt: it was interrupted; what had finished is kept and used by the next call.
    """
    board = board or open_board()
    interrupts = Interrupts(
        is_lost, lambda name: board.note(f"{name}: Ray has ended too; {RESUMES}")
    )
    try:
        with interrupts.handled():
            return _run(request, board, interrupts)
    except KeyboardInterrupt as interrupt:
        board.close()
        board.note(f"{str(interrupt) or 'SIGINT'}: ended; {RESUMES}")
        raise
    except Exception as error:
        lacking = disk_error(error, RunsFolder.at(request.runs).path) or memory_error(error)
        if lacking is None:
            raise
        raise type(lacking)(f"the study is not done: {lacking}; {RESUMES}") from error
    finally:
        board.close()


def _run(request: StudyRequest, board: Board, interrupts: Interrupts) -> StudyFolder:
    runs = RunsFolder.at(request.runs)
    manifest = Manifest.load(request.data)
    space = resolve_space(request)
    starts = resolve_starting_points(request, space, runs)
    folder, study = open_record(request, runs, manifest, space)
    if request.preflight and not any(folder.trials()):
        check_names(space)
        check_classifiers(space, manifest, request.weights)
        preflight(space, manifest.folder, board.note, weights=request.weights)
    with ExitStack() as stack:
        stack.enter_context(locked_study(folder))
        records = folder.records()  # of earlier calls
        tracker = SubprocessTracker(runs, say)
        stack.callback(tracker.abandon)
        checker = ThreadPoolExecutor(1)
        named = checker.submit(check_names, space)
        checked = checker.submit(check_classifiers, space, manifest, request.weights)
        try:
            stack.enter_context(connected(request.address))
        finally:
            named.result()  # a misspelt name is told first, whatever a cluster says
        interrupts.take()
        request = resolve_gpu_share(request, space, manifest, nodes(), board.note)
        plan = plan_study(request, study, records, nodes())
        board.plan(plan.lines(study.trials, study.max_epochs), plan.lanes)
        lanes = None
        if has_pending_trials(folder, study, records):
            lanes = stack.enter_context(running_lanes(plan, folder, lambda: bool(interrupts.name)))
        checked.result()
        tracker.wait_open()
        write_files(folder, space, manifest)
        observers: list[Tracker] = [board, tracker, StudyGauges(study, records)]
        ledger = stack.enter_context(
            open_ledger(request, folder, study, space, starts, records, observers)
        )
        for observer in observers:
            observer.study_started(study, (folder.space_file, folder.labels_file))
        if not folder.record_file.exists() or folder.record().state != "complete":
            ledger.resend(tracker)
        study.write(folder.record_file)
        if starts and not ledger.records:
            board.note(starts_text(request, space, len(starts)))
        board.known(ledger.records + ledger.refits)
        plans = plan, refit_plan(request, study, nodes())
        session = Session(request, runs, manifest, space, plans, ledger, board, interrupts, lanes)
        try:
            session.run()
        finally:
            study = study.model_copy(
                update={"state": session.state(), "ended_at": time.time()},
            )
            try:
                study.write(folder.record_file)
            finally:
                for observer in observers:
                    observer.study_ended(study, (folder.record_file,))
                    observer.close()
    if interrupts.name:
        raise KeyboardInterrupt(interrupts.name)
    if ledger.stopped == LANES_ENDED:
        raise PlanError(f"study {study.name!r} is not done: {LANES_ENDED}; {RESUMES}")
    return folder


def starts_text(request: StudyRequest, space: SearchSpace, count: int) -> str:
    """Say which trials come first and whose they are."""
    if request.start_from:
        whose = f"--start-from {' '.join(request.start_from)}"
    else:
        whose = (
            "the space's own" if space.starts else "the shipped ones; --start-from none has none"
        )
    return f"starting points: {count}, tried first ({whose})"
