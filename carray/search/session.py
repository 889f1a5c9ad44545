"""One call's work on a study: its lanes, the search on them, then refits and folds."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from carray.costs import BUDGET_SPENT, TIME_BUDGET, Cost
from carray.errors import PlanError, counted
from carray.lanes.lane import STOP_SECONDS, Lanes, LaneShape
from carray.lanes.ray_groups import ray_lanes
from carray.records import TrialRecord, TrialState
from carray.search.budget import held_by_lane
from carray.search.disk_budget import DiskBudget
from carray.search.extension import continuation_text
from carray.search.forecast import Forecast
from carray.search.ledger import INTERRUPTED, Ledger
from carray.search.nodes import Growth, travelling_files
from carray.search.observers.console import Board
from carray.search.observers.start_line import refits_text
from carray.search.placement.node_checks import NodeChecks
from carray.search.placement.plan import Plan
from carray.search.request import asked_budget, asked_folds, asked_price, fold_trials, refit_count
from carray.search.scheduling.driver import Driver
from carray.search.scheduling.hopeless import LEAST_EPOCHS, HopelessRule
from carray.search.scheduling.refit_time import RefitTime
from carray.search.scheduling.refits import Refit, wanted_refits
from carray.search.scheduling.time_plan import Pace
from carray.search.scheduling.tune_run import run_search
from carray.search.setup import StudySetup, build_stores, scheduler_of
from carray.search.signals import Interrupts
from carray.search.waiting import waiting_for
from carray.search.watchdog import watched

INTERRUPTED_PATIENCE_SECONDS = 2.0  # for lanes in the middle of an epoch that nobody wants
REFUSED_PATIENCE_SECONDS = 15.0  # for lanes on their way up


@contextmanager
def running_lanes(
    plan: Plan, setup: StudySetup, checks: NodeChecks, is_hurried: Callable[[], bool]
) -> Iterator[Lanes]:
    """Ask for the plan's lanes, on checked nodes, and stop them after; they come up meanwhile.

    They aren't waited for long where `is_hurried` says so in the end. After an error they are given
    time to come up and go: Ray's shutdown beside threads that still ask it for a worker group may
    end in a segmentation fault.
    """
    env = setup.request.env
    shape = LaneShape(
        plan.workers,
        plan.cpus_per_worker,
        plan.gpus_per_worker,
        shares_cpus=plan.shares_cpus,
        variables=env,
    )
    folder = setup.folder
    with travelling_files(setup) as places:
        lanes = ray_lanes(shape, plan.lanes, folder.cache, folder.path.name, places)
        patience = REFUSED_PATIENCE_SECONDS
        try:
            if places:
                lanes.place_on([node.id for node in checks.good()])
            lanes.start()
            yield lanes
            patience = STOP_SECONDS
        finally:
            lanes.stop(INTERRUPTED_PATIENCE_SECONDS if is_hurried() else patience)
            shutil.rmtree(folder.cache, ignore_errors=True)


class Session:
    """One call's work on a study: search, refit, other lanes for it where it needs others."""

    def __init__(
        self,
        setup: StudySetup,
        plans: tuple[Plan, Plan],
        ledger: Ledger,
        board: Board,
        interrupts: Interrupts,
        checks: NodeChecks,
        lanes: Lanes | None,
        called_at: float,
    ) -> None:
        request = setup.request
        self._setup, self._request = setup, request
        kept = refit_count(request) + fold_trials(request)
        self._budget = DiskBudget(setup.runs, request.disk_budget_gib, max(3, kept))
        self._plan, self._refit_plan = plans
        self._ledger = ledger
        self.on_deleted: Callable[[str], None] = lambda trial: None  # whose weights went
        self._board = board
        self._forecast = Forecast(ledger, request.goal, request.stop_when_gain_below, board.note)
        self._price = asked_price(request)
        budget, self._began_at = asked_budget(request), time.monotonic()
        self._deadline = None
        if budget:  # a time counts from the call, devices and money from the lanes
            start = called_at if budget.unit == "s" else self._began_at
            self._deadline = board.deadline = start + budget.seconds(plans[0])
        self._refit_time = RefitTime(
            setup, ledger, plans[1], self._began_at, self._deadline, board.note
        )
        self._start_seconds = 0.0  # from asking for lanes to the first one that is up
        self._interrupts = interrupts
        self._checks = checks
        self._has_held = lanes is not None
        self._lanes = lanes  # on their way up, where there is anything to search
        self._has_ended = False

    def run(self) -> None:
        """Search, then refit; a study with nothing left to do has no lanes."""
        has_repeated = False
        if self._lanes is not None:
            with self._up(self._lanes) as lanes:
                self._search(lanes)
                if has_repeated := self._plan.serves(self._refit_plan):
                    self._repeat(lanes)
        if not (has_repeated or self._stopped()) and self._is_anything_wanted():
            if self._lanes is not None:
                self._lanes.stop()  # others ask for their place
            self._has_held = True
            begun = running_lanes(self._refit_plan, self._setup, self._checks, self._stopped)
            with begun as asked, self._up(asked) as lanes:
                self._repeat(lanes)
        self._has_ended = not self._stopped()
        if self._has_ended and self._is_budget_spent():
            self._board.note(self._spent_text())

    def _spent_text(self) -> str:
        """Say how many trials were finished, stopped and not even opened."""
        records = self._ledger.records
        finished = sum(record.state is TrialState.COMPLETE for record in records)
        by_budget = sum(record.stopped_by_budget for record in records)
        return (
            f"{BUDGET_SPENT}: {counted(finished, 'trial')} finished, "
            f"{by_budget} stopped by the budget, "
            f"{self._ledger.study.trials - len(records)} never opened"
        )

    def outcome(self) -> dict[str, Any]:
        """Return what the study's record says of how it stands, and of what it has cost."""
        is_done = self._has_ended and not _unfinished(self._ledger.records)
        held = held_by_lane(self._plan, self._price).cost(self._lane_seconds())
        spent = (self._setup.study.cost or Cost()) + held
        ledger = self._ledger
        trained = ledger.records + ledger.refits + ledger.folds
        drawn = sum(record.cost.energy_kwh for record in trained if record.cost)
        return {
            "state": "complete" if is_done else "interrupted",
            "budget_spent": is_done and self._is_budget_spent(),
            "ended_at": time.time(),
            "cost": spent.model_copy(update={"energy_kwh": drawn}),
        }

    def _lane_seconds(self) -> float:
        """Return for how long lanes have been held; none are where nothing was left to do."""
        seconds = time.monotonic() - self._began_at if self._has_held else 0.0
        added = self._lanes.added_seconds() if self._lanes else 0.0
        return self._plan.lanes * seconds + added

    def _is_budget_spent(self) -> bool:
        some = any(record.stopped_by_budget for record in self._ledger.records)
        return self._ledger.stopped == TIME_BUDGET and (some or not self._ledger.is_full)

    def _search(self, lanes: Lanes) -> None:
        ended = self._ledger.ended
        scheduler = scheduler_of(self._setup, ended)
        driver = self._driver(lanes)
        self._forecast.look()  # a study that goes on may have enough already
        hopeless = hopeless_rule_of(self._setup, ended)
        cache = self._ledger.folder.cache
        run_search(driver, scheduler, self._deadline, cache, self._reserved, hopeless)
        self._say_without_logits(driver)
        if driver.lane_waits:
            self._board.note(waits_text(driver.lane_waits))
        for line in timing_lines(self._ledger.folder.probe_file):
            self._board.note(line)

    def _is_anything_wanted(self) -> bool:
        """Say whether anything comes after the search."""
        refit = next(self._refit_time.refits(self._ledger.best()), None)
        return any((self._open_continuations(), refit, *self._open_folds()))

    def _repeat(self, lanes: Lanes) -> None:
        """Train the best on, or again, then the very best on folds, each to its last epoch."""
        for trainings in (self._continuations, self._refits, self._folds):
            if self._stopped():
                return
            driver = self._driver(lanes)
            driver.refit(trainings(driver))
            self._say_without_logits(driver)

    def _continuations(self, driver: Driver) -> Iterator[TrialRecord]:
        if wanted := self._open_continuations():
            self._board.note(continuation_text(wanted))
            yield from wanted

    def _refits(self, driver: Driver) -> Iterator[TrialRecord]:
        """Open refits, each when a lane is free for it; end those begun that others have surpassed.

        A call that asks for no refits leaves all as they are.
        """
        best, time_left = self._ledger.best(), self._refit_time
        if planned := time_left.planned(best):
            refits = refits_text(planned, self._setup.space)
            self._board.note(f"{refits}, on {self._refit_plan.lanes_text()}")
        for refit in time_left.refits(best):
            opened = self._ledger.open_refit(refit.of, refit.epochs, refit.seed)
            driver.give_up(self._surpassed(refit, opened, best))
            yield opened

    def _surpassed(
        self, refit: Refit, opened: TrialRecord, best: Sequence[TrialRecord]
    ) -> list[TrialRecord]:
        """Return unfinished refits of worse trials, and those that another length replaces."""
        wanted = wanted_refits(self._request, best, refit.epochs)
        return [
            record
            for record in _unfinished(self._ledger.refits, [opened])
            if not record.continued_epochs
            and (
                refit.is_same(record, of_any_length=True)
                or not any(each.is_same(record, of_any_length=True) for each in wanted)
            )
        ]

    def _folds(self, driver: Driver) -> Iterator[TrialRecord]:
        wanted, surpassed = self._open_folds()
        driver.give_up(surpassed)
        if wanted:
            self._board.note(_folds_text(wanted))
            yield from wanted

    def _open_continuations(self) -> list[TrialRecord]:
        """Return the unfinished refits that bring trials to more epochs."""
        epochs, taken = self._setup.study.max_epochs, self._ledger.taken_over
        worth = self._refit_time.worth
        count = self._refit_time.count_that_fit([Refit.longer(r, epochs) for r in worth], taken)
        return _unfinished([self._ledger.open_continuation(each, epochs) for each in worth[:count]])

    def _reserved(self, pace: Pace, soon: bool) -> float:
        """Return how long refits and folds will take, on the lanes that they get, in seconds."""
        start = 0.0 if self._plan.serves(self._refit_plan) else self._start_seconds
        seconds = self._refit_time.reserved(pace, soon)
        return start + seconds if seconds else 0.0

    def _open_folds(self) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """Return unfinished trials on folds: of the best configurations, and of those surpassed."""
        numbers = asked_folds(self._request)
        best = self._ledger.best()[: self._request.top_folds] if numbers else []
        folds = [self._ledger.open_fold(of, fold) for of in best for fold in numbers]
        return _unfinished(folds), _unfinished(self._ledger.folds, folds) if folds else []

    def _say_without_logits(self, driver: Driver) -> None:
        for line in driver.without_logits:
            self._board.note(line)

    def _stopped(self) -> bool:
        return bool(self._interrupts.name) or self._ledger.is_halted

    def _driver(self, lanes: Lanes) -> Driver:
        data = self._setup.manifest.where
        plan = self._plan if lanes is self._lanes else self._refit_plan
        held = held_by_lane(plan, self._price)
        driven = self._ledger, lanes, data, self._on_left
        pace = self._refit_time.pace
        return Driver(*driven, self._setup.weights, held, self._board.note, pace)

    def _on_left(self, record: TrialRecord) -> None:
        """Keep the disk budget after each trial, and say what further ones are worth."""
        for gone in self._budget.enforce(self._ledger.trial_folder(record.number)):
            self._board.note(f"weights of {gone} deleted: over the disk budget")
            self.on_deleted(gone)
        if record.kind == "search":
            self._forecast.look()

    @contextmanager
    def _up(self, lanes: Lanes) -> Iterator[Lanes]:
        """Wait for lanes on their way up, and watch over them."""
        with self._board.paused():
            build_stores(self._setup)  # while the worker groups start
        with self._interrupts.gently(self._stopper(lanes)):
            self._wait_for(lanes)
            growth = self._growth(lanes)
            with watched(lanes, self._ledger, self._board, growth):
                yield lanes

    def _growth(self, lanes: Lanes) -> Growth:
        """Return what adds lanes to the search; what a refit or a budget of devices has stays."""
        plan = self._plan if lanes is self._lanes else self._refit_plan
        budget = asked_budget(self._request)
        if lanes is not self._lanes or (budget and budget.unit != "s"):
            plan = replace(plan, most=plan.lanes)
        return Growth(lanes, self._checks, plan, lambda: self._ledger.trials_left)

    def _wait_for(self, lanes: Lanes) -> None:
        timeout, wanted = self._request.place_timeout_seconds, lanes.num_lanes

        def so_far() -> str:
            return f"{lanes.lanes_up()} of {wanted} up, loading libraries"

        with waiting_for(counted(wanted, "lane"), self._board.note, so_far):
            up = lanes.wait_up(timeout, unless=self._stopped)
        if up == 0 and not self._stopped():
            raise PlanError(lanes.place_error(timeout))
        self._start_seconds = time.monotonic() - self._began_at

    def stop(self) -> None:
        """Leave all trials as they are, each after its epoch."""
        self._ledger.stopped = INTERRUPTED

    def _stopper(self, lanes: Lanes) -> Callable[[str], None]:
        def stop(signal_name: str) -> None:
            self._ledger.stopped = INTERRUPTED
            self._board.note(f"{signal_name}: stopping; a second one ends at once")
            lanes.fail(INTERRUPTED)

        return stop


def hopeless_rule_of(setup: StudySetup, ended: Sequence[TrialRecord]) -> HopelessRule | None:
    """Build what ends hopeless trials after the epochs of grace, where somebody has said those.

    None where the study's scheduler is `none`: nothing is stopped then.
    """
    if setup.study.scheduler == "none":
        return None
    grace = setup.request.grace_epochs or setup.space.grace_epochs
    return HopelessRule(setup.study.metric, ended, max(LEAST_EPOCHS, grace or 0))


def _folds_text(wanted: Sequence[TrialRecord]) -> str:
    of = list(dict.fromkeys(f"{record.fold_of:04d}" for record in wanted))
    on = len({record.config.fold for record in wanted})
    return f"folds: trial{'s' * (len(of) > 1)} {', '.join(of)} on {counted(on, 'fold')}"


def _unfinished(
    records: Sequence[TrialRecord], besides: Sequence[TrialRecord] = ()
) -> list[TrialRecord]:
    numbers = {record.number for record in besides}
    return [r for r in records if not r.state.is_finished() and r.number not in numbers]


def timing_lines(file: Path) -> list[str]:
    """Say which ways of computing a step were measured, and how fast they were."""
    if not file.exists():
        return []
    from carray.training.compute.autotune import TimingCache

    return TimingCache.read(file).lines()


def waits_text(seconds: Sequence[float]) -> str:
    """Say how long lanes had nothing to do between one trial and the next."""
    return (
        f"lanes waited {median(seconds):.2f} s (median), at most {max(seconds):.2f} s, between "
        f"two trials"
    )
