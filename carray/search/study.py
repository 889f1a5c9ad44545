"""A study from question to records: check, plan, lanes, search, refit.

Everything that can be refused is refused before the first trial. Calling `run_study` again with
the same arguments goes on where the last call ended; with more trials it extends the study.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carray.config import TrialConfig, build_config
from carray.data.manifest import Manifest
from carray.data.store import open_store
from carray.errors import ConfigError, PlanError, RecordError
from carray.files import write_text
from carray.progress import progress
from carray.provenance import git_commit
from carray.records import HELD_SPLITS, RunsFolder, StudyFolder, StudyRecord, TrialRecord
from carray.search.board import Board, open_board
from carray.search.budget import enforce_budget
from carray.search.cluster import connected, nodes, on_interrupt
from carray.search.driver import INTERRUPTED, TIME_BUDGET, Driver
from carray.search.ledger import Ledger, open_optuna_study
from carray.search.plan import Plan, make_plan
from carray.search.samplers import build_sampler
from carray.search.schedulers import build_scheduler
from carray.search.space import Block, SearchSpace
from carray.search.watchdog import watched
from carray.tracking import Tracker, open_tracker
from carray.training.lane import Lanes, LaneShape, place_error

DEFAULT_TRIALS = 30
REFIT_LENGTH = 2  # a refit's epochs over the search's, where none are given


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """What a study is asked to do; the command line's options have the same names."""

    data: Path
    space: str
    trials: int | None = None
    name: str | None = None
    runs: str | None = None
    max_epochs: int | None = None
    concurrent: int | None = None
    workers_per_trial: int = 1
    gpus_per_trial: float | None = None
    cpus_per_worker: float | None = None
    sampler: str | None = None
    scheduler: str | None = None
    grace_epochs: int = 1
    reduction_factor: int = 3
    time_budget_seconds: float | None = None
    refit: int = 0
    refit_epochs: int | None = None
    address: str | None = None
    seed: int = 0
    overrides: Mapping[str, Any] = field(default_factory=dict)
    disk_budget_gib: float = 50.0
    storage: str | None = None
    place_timeout_seconds: float = 300.0


def run_study(request: StudyRequest, board: Board | None = None) -> StudyFolder:
    """Run, resume or extend a study; return its folder.

    Raises:
        CarrayError: the request can't be carried out; nothing was started.
        KeyboardInterrupt: it was interrupted; what had finished is kept and used by the next call.
    """
    board = board or open_board()
    runs = RunsFolder.at(request.runs)
    manifest = Manifest.load(request.data)
    space = _wanted_space(request)
    _check_backbones(space, manifest)
    folder, study = _open_record(request, runs, manifest, space)
    tracker = open_tracker(runs)
    with _locked(folder), connected(request.address):
        plan = _plan(request, folder, study)
        board.plan(plan.lines(study.trials, study.max_epochs), plan.lanes)
        _write_open(folder, study, space, manifest)
        observers: list[Tracker] = [board, tracker, *_exports(study)]
        for observer in observers:
            observer.study_started(study, (folder.space_file, folder.labels_file))
        ledger = _open_ledger(request, folder, study, space, observers)
        board.known(ledger.records + ledger.refits)
        session = _Session(request, runs, manifest, space, plan, ledger, board)
        try:
            session.run()
        finally:
            study = study.model_copy(
                update={"state": session.state(), "ended_at": time.time()},
            )
            study.write(folder.record_file)
            for observer in observers:
                observer.study_ended(study, (folder.record_file,))
                observer.close()
    if session.interrupted_by:
        raise KeyboardInterrupt(session.interrupted_by)
    return folder


class _Session:
    """One call's work on a study: lanes up, search, refit, lanes down."""

    def __init__(
        self,
        request: StudyRequest,
        runs: RunsFolder,
        manifest: Manifest,
        space: SearchSpace,
        plan: Plan,
        ledger: Ledger,
        board: Board,
    ) -> None:
        self._request = request
        self._runs = runs
        self._manifest = manifest
        self._space = space
        self._plan = plan
        self._ledger = ledger
        self._board = board
        self._cache = ledger.folder.path / "tune"  # Tune's and Train's own files
        self._deadline = _deadline(request.time_budget_seconds)
        self.interrupted_by = ""

    def run(self) -> None:
        """Search, then refit; a study with nothing left to do starts no lane."""
        if self._has_search():
            with self._lanes(self._plan) as lanes:
                self._search(lanes)
                plan = self._refit_plan()
                if not self._stopped() and plan == self._plan:
                    self._refit(lanes)
                    return
        if self._has_refit() and not self._stopped():
            with self._lanes(self._refit_plan()) as lanes:
                self._refit(lanes)

    def state(self) -> str:
        """Return how the study stands, in the words of its record."""
        if self.interrupted_by or self._ledger.stopped not in ("", TIME_BUDGET):
            return "interrupted"
        unfinished = [r for r in self._ledger.records if not r.state.is_finished()]
        return "interrupted" if unfinished else "complete"

    def _search(self, lanes: Lanes) -> None:
        request, study = self._request, self._ledger.study
        scheduler = build_scheduler(
            study.scheduler,
            metric=study.metric,
            direction=study.direction,
            max_epochs=study.max_epochs,
            grace_epochs=request.grace_epochs,
            reduction_factor=request.reduction_factor,
            ended=[r for r in self._ledger.records if r.state.is_finished()],
        )
        self._driver(lanes).search(scheduler, self._deadline, self._cache)

    def _refit(self, lanes: Lanes) -> None:
        open_refits = self._open_refits()
        if open_refits:
            self._board.note(
                f"refit: the best {len(open_refits)} again, {open_refits[0].config.epochs} epochs"
            )
            self._driver(lanes).refit(open_refits)

    def _open_refits(self) -> list[TrialRecord]:
        best = self._ledger.best()[: self._request.refit]
        refits = [self._ledger.open_refit(record, self._refit_epochs()) for record in best]
        return [record for record in refits if not record.state.is_finished()]

    def _refit_epochs(self) -> int:
        return self._request.refit_epochs or REFIT_LENGTH * self._ledger.study.max_epochs

    def _refit_plan(self) -> Plan:
        return self._plan.widened(self._request.refit) if self._request.refit else self._plan

    def _has_search(self) -> bool:
        records = self._ledger.records
        running = any(not record.state.is_finished() for record in records)
        return running or len(records) < self._ledger.study.trials or bool(self._ledger.to_finish())

    def _has_refit(self) -> bool:
        return self._request.refit > 0 and bool(self._open_refits())

    def _stopped(self) -> bool:
        return bool(self.interrupted_by) or self._ledger.stopped not in ("", TIME_BUDGET)

    def _driver(self, lanes: Lanes) -> Driver:
        return Driver(self._ledger, lanes, self._manifest.folder.resolve(), self._on_left)

    def _on_left(self, record: TrialRecord) -> None:
        """Keep the disk budget after each trial."""
        for gone in enforce_budget(
            self._runs, self._request.disk_budget_gib, max(3, self._request.refit)
        ):
            self._board.note(f"weights of {gone.name} deleted: over the disk budget")

    @contextmanager
    def _lanes(self, plan: Plan) -> Iterator[Lanes]:
        shape = LaneShape(plan.workers, plan.cpus_per_worker, plan.gpus_per_worker)
        lanes = Lanes(shape, plan.lanes, self._cache, self._ledger.study.name)
        lanes.start()
        try:
            with on_interrupt(self._interrupter(lanes)):
                _warm_stores(self._manifest, self._space)  # while the worker groups start
                self._wait_for(lanes)
                with watched(lanes, self._ledger, self._board.note):
                    yield lanes
        finally:
            lanes.stop(*([2.0] if self._stopped() else []))
            shutil.rmtree(self._cache, ignore_errors=True)

    def _wait_for(self, lanes: Lanes) -> None:
        timeout = self._request.place_timeout_seconds
        if not self._stopped() and lanes.wait_up(timeout) == 0 and not self._stopped():
            raise PlanError(place_error(lanes, timeout))

    def _interrupter(self, lanes: Lanes) -> Callable[[str], None]:
        def stop(signal_name: str) -> None:
            self.interrupted_by = signal_name
            self._ledger.stopped = INTERRUPTED
            self._board.note(f"{signal_name}: stopping; the same command goes on from here")
            lanes.fail(INTERRUPTED)

        return stop


def _wanted_space(request: StudyRequest) -> SearchSpace:
    space = SearchSpace.load(request.space)
    fixed = dict(request.overrides)
    if request.max_epochs is not None:
        fixed["epochs"] = request.max_epochs
    return space.with_fixed(fixed) if fixed else space


def _check_backbones(space: SearchSpace, manifest: Manifest) -> None:
    """Refuse a backbone that timm doesn't have, and weights that aren't there or don't fit."""
    from carray.models.classifier import check_backbone

    for config in _one_config_a_branch(space):
        check_backbone(config, len(manifest.classes))


def _one_config_a_branch(space: SearchSpace) -> Iterator[TrialConfig]:
    """Yield a config for every backbone and source of weights that a trial may have."""
    seen = set()
    for _, block in space.branches():
        ends = {name: drawn.ends()[0] for name, drawn in block.search.items()}
        for backbone in _known_values(block, "backbone"):
            for pretrained in _known_values(block, "pretrained"):
                if (backbone, pretrained) not in seen:
                    seen.add((backbone, pretrained))
                    chosen = {"backbone": backbone, "pretrained": pretrained}
                    yield build_config({**block.fixed, **ends, **chosen})


def _warm_stores(manifest: Manifest, space: SearchSpace) -> None:
    """Decode the images now, in view, at every size that is known before trials are drawn."""
    inputs = set()
    for _, block in space.branches():
        for size in _known_values(block, "image_size"):
            for fit in _known_values(block, "fit"):
                config = build_config({"image_size": size, "fit": fit})
                inputs.add((config.image_size, config.fit))
    for image_size, image_fit in sorted(inputs):
        open_store(manifest, image_size, image_fit, progress)


def _known_values(block: Block, name: str) -> tuple[Any, ...]:
    """Return what `name` may be: its fixed value or default, its choices, or a range's ends."""
    drawn = block.search.get(name)
    return drawn.ends() if drawn else (block.fixed.get(name, getattr(TrialConfig(), name)),)


def _open_record(
    request: StudyRequest, runs: RunsFolder, manifest: Manifest, space: SearchSpace
) -> tuple[StudyFolder, StudyRecord]:
    """Return the study's folder and its record: the stored one extended, or a new one."""
    name = request.name or f"{Path(request.space).stem}-{manifest.folder.resolve().name}"
    if not name or set(name) & set('/\\:*?"<>|') or name.startswith("."):
        raise ConfigError(f"--study {name!r} can't name a folder; use letters, digits, - and _")
    folder = runs.study(name)
    max_epochs = _max_epochs(space)
    fresh = StudyRecord(
        name=name,
        data=str(manifest.folder.resolve()),
        manifest_hash=manifest.hash,
        classes=manifest.classes,
        metric=space.metric,
        direction=space.direction,
        space_file=str(request.space),
        space_hash=space.hash,
        sampler=request.sampler or space.sampler or "tpe",
        scheduler=request.scheduler or space.scheduler or "asha",
        trials=request.trials or space.trials or DEFAULT_TRIALS,
        max_epochs=max_epochs,
        seed=request.seed,
        started_at=time.time(),
        git_commit=git_commit(),
    )
    build_sampler(fresh.sampler, fresh.seed)
    build_scheduler(
        fresh.scheduler, metric=fresh.metric, direction=fresh.direction, max_epochs=max_epochs
    )
    if fresh.trials < 1:
        raise ConfigError(f"--trials {fresh.trials} must be at least 1")
    if request.refit > fresh.trials:
        raise ConfigError(f"--refit {request.refit} must be at most --trials {fresh.trials}")
    if not folder.record_file.exists():
        return folder, fresh
    return folder, _resumed(folder.record(), fresh)


def _resumed(stored: StudyRecord, fresh: StudyRecord) -> StudyRecord:
    """Return the stored record with this call's budget; what the trials share must not change."""
    for what, name in (("data set", "manifest_hash"), ("search space", "space_hash")):
        if getattr(stored, name) != getattr(fresh, name):
            raise RecordError(
                f"study {stored.name!r} was begun with another {what} "
                f"({getattr(stored, name)[:8]}, now {getattr(fresh, name)[:8]}); give this one "
                "another name with --study"
            )
    kept = {"started_at": stored.started_at, "tracking": stored.tracking, "ended_at": None}
    return fresh.model_copy(update={**kept, "trials": max(stored.trials, fresh.trials)})


def _max_epochs(space: SearchSpace) -> int:
    """Return the most epochs that any trial may have: the scheduler's full length."""
    return max(int(e) for _, block in space.branches() for e in _known_values(block, "epochs"))


def _plan(request: StudyRequest, folder: StudyFolder, study: StudyRecord) -> Plan:
    ended = sum(record.state.is_finished() for _, record in folder.trials())
    return make_plan(
        nodes(),
        trials=max(1, study.trials - ended),
        workers=request.workers_per_trial,
        gpus_per_trial=request.gpus_per_trial,
        cpus_per_worker=request.cpus_per_worker,
        concurrent=request.concurrent,
    )


def _write_open(
    folder: StudyFolder, study: StudyRecord, space: SearchSpace, manifest: Manifest
) -> None:
    write_text(folder.space_file, space.text)
    folder.write_labels({s: manifest.labels[manifest.rows(s)] for s in HELD_SPLITS})
    study.write(folder.record_file)


def _open_ledger(
    request: StudyRequest,
    folder: StudyFolder,
    study: StudyRecord,
    space: SearchSpace,
    observers: list[Tracker],
) -> Ledger:
    storage = request.storage or f"sqlite:///{folder.optuna_file}"
    drawn = sum(1 for _ in folder.trials())
    sampler = build_sampler(study.sampler, study.seed + drawn)  # a resumed one must not repeat
    optuna_study = open_optuna_study(study.name, study.direction, storage, sampler)
    if not optuna_study.get_trials(deepcopy=False):
        for point in space.start_points():
            optuna_study.enqueue_trial(point)
    return Ledger(folder, study, space, optuna_study, observers)


def _exports(study: StudyRecord) -> list[Tracker]:
    from carray.search.exports import StudyExports

    return [StudyExports(study)]


def _deadline(time_budget_seconds: float | None) -> float | None:
    return None if time_budget_seconds is None else time.monotonic() + time_budget_seconds


@contextmanager
def _locked(folder: StudyFolder) -> Iterator[None]:
    """Hold the study against a second driver."""
    folder.path.mkdir(parents=True, exist_ok=True)
    with (folder.path / "driver.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecordError(
                f"study {folder.path.name!r} is being run by another process; wait for it, or "
                "name another study with --study"
            ) from None
        yield
