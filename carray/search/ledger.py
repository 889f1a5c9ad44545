"""`Ledger`: opens, reports and ends trials, in Optuna's study and in the records at once.

It knows neither Ray nor Tune. `ask` opens a trial, `report` adds an epoch, `end` closes it and
tells Optuna, `leave` notes that its logits are there. A process killed between any two of these
loses nothing: what was running is asked for again, from its last checkpoint.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna

from carray.config import TrialConfig
from carray.costs import SMALL_GAIN, TIME_BUDGET
from carray.masking import masked
from carray.metrics import EPOCH_SECONDS
from carray.records import StudyFolder, StudyRecord, TrialFolder, TrialRecord, TrialState
from carray.search.extension import best_first
from carray.search.memory_limits import memory_varies, too_large, too_large_text
from carray.search.sampling.local import is_given
from carray.search.sampling.members import EnsembleMembers
from carray.search.sampling.optuna_trials import OUT_OF_MEMORY, draw_valid, tell_end
from carray.search.sampling.storage import DRAWN_AGAIN, FIXED_PARAMS, flush
from carray.search.space.space import SearchSpace
from carray.search.warm_start.known_recipes import longer_config, refit_config
from carray.tracking import Tracker

INTERRUPTED = "interrupted"  # why a trial left running was left; the next call goes on with it
UNFIT_DRAWS = 4  # draws in a row that the budget has no room for before no more are opened
LARGE_DRAWS = 10  # draws in a row that can't fit in memory before one is tried nevertheless
Fits = Callable[[TrialConfig, int], bool]  # whether so many epochs of a trial fit in what is left
TOLD_APART = ("epochs", "fold", "seed")  # what tells refits, or folds, of one trial apart


class Ledger:
    """Trials of one study, each in exactly one state; safe to call from several threads.

    `records` are those of the folder, where it has been read already; `network_cost` says what of a
    trial's network is told to Optuna beside its value.
    """

    def __init__(
        self,
        folder: StudyFolder,
        study: StudyRecord,
        space: SearchSpace,
        optuna_study: optuna.Study,
        observers: Sequence[Tracker] = (),
        records: Sequence[TrialRecord] | None = None,
        network_cost: Callable[[TrialConfig], dict[str, float]] = lambda config: {},
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.members = EnsembleMembers(folder)
        self.study = study
        self.space = space
        self.say: Callable[[str], None] = lambda text: None  # hears of draws that can't fit
        self._infeasible: dict[int, TrialRecord] = {}  # of this call: the next may have more memory
        self._avoided: set[int] = set()  # those of them that draws were refused for
        self.stopped = ""  # why no more trials are opened; "" while they are
        self._network_cost = network_cost
        self._clock = clock
        self.heard_at = clock()  # when a trial last began, brought an epoch or ended
        self.longest_epoch_seconds = 0.0
        self._optuna = optuna_study
        self._observers = tuple(observers)
        self._lock = threading.RLock()
        records = folder.records() if records is None else records
        self._records = {record.number: record for record in records}
        self._whole: set[int] = set()  # trials whose record this process has written whole
        self._begun = [each for each in self.records if self._goes_on(each)]  # by earlier calls
        self._draw_strays_again()
        self._tell_stopped_for_good()

    @property
    def records(self) -> list[TrialRecord]:
        """Every trial of the search, by number; refits are not among them."""
        return self._of_kind("search")

    @property
    def ended(self) -> list[TrialRecord]:
        """Trials of the search that have ended, but for those that this call may go on with."""
        with self._lock:
            begun = {record.number for record in self._begun}
            return [r for r in self.records if r.state.is_finished() and r.number not in begun]

    @property
    def trials_left(self) -> int:
        """How many trials the study is to have besides those that have ended."""
        return self.study.trials - len(self.ended)

    @property
    def refits(self) -> list[TrialRecord]:
        """Every refit, by number."""
        return self._of_kind("refit")

    @property
    def folds(self) -> list[TrialRecord]:
        """Every trial on a fold, by number."""
        return self._of_kind("fold")

    def _of_kind(self, kind: str) -> list[TrialRecord]:
        with self._lock:
            return [record for record in self._all() if record.kind == kind]

    def record(self, number: int) -> TrialRecord:
        """Return trial `number` as it stands."""
        return self._records[number]

    def trial_folder(self, number: int) -> TrialFolder:
        """Return the folder of trial `number`."""
        return self.folder.trial(number)

    def missing_logits(self) -> list[TrialRecord]:
        """Return ended trials whose logits a killed process never wrote, though it could have."""
        return [r for r in self._all() if lacks_logits(r, self.trial_folder(r.number))]

    def ask(self, fits: Fits = lambda config, epochs: True) -> TrialRecord | None:
        """Open the next trial, one begun by an earlier call first; None once there are enough.

        What doesn't fit, drawn or stopped by an earlier budget, is left for the next call. None
        where nothing does.
        """
        with self._lock:
            if self.stopped:
                return None
            record = self._resumed(fits)
            if record is None:
                if len(self.records) >= self.study.trials:
                    return None
                drawn = self._draw_fitting(fits)
                if drawn is None:
                    return None
                sampler_number, params, config = drawn
                frozen = self._optuna.get_trials(deepcopy=False)[sampler_number]
                origin = {"sampler_number": sampler_number, "is_given": is_given(frozen)}
                record = self._begin(params, config, **origin)
            for observer in self._observers:
                observer.trial_started(record)
            return record

    def _goes_on(self, record: TrialRecord) -> bool:
        return goes_on(record, self.trial_folder(record.number))

    def _resumed(self, fits: Fits) -> TrialRecord | None:
        """Open again what an earlier call left running, or its budget stopped and fits now."""
        self._begun = [r for r in self._begun if self._goes_on(r)]  # or its checkpoint has gone
        for begun in self._begun:
            rest = begun.config.epochs - len(begun.epochs)
            if begun.stopped_by_budget and not fits(begun.config, rest):
                continue
            self._begun.remove(begun)
            self.trial_folder(begun.number).remove_logits()
            if begun.stopped_by_budget:
                changes = {"state": TrialState.RUNNING, "reason": "", "ended_at": None}
                begun = self._store(begun.model_copy(update=changes))
            return begun
        return None

    @property
    def is_halted(self) -> bool:
        """Say whether trials that run are left as they are, not only no more opened."""
        return self.stopped not in ("", TIME_BUDGET, SMALL_GAIN)

    @property
    def is_full(self) -> bool:
        """Say whether as many trials have been opened as the study is to have, and none waits."""
        return len(self.records) >= self.study.trials and not self._begun

    def open_refit(self, of: TrialRecord, epochs: int, seed: int | None = None) -> TrialRecord:
        """Open a refit of a trial at `epochs`, or return the one that a killed process began.

        `seed` is another than the trial's.
        """
        seed = of.config.seed if seed is None else seed
        return self._open_again("refit", of, refit_config(self.space, of, epochs, seed))

    def open_continuation(self, of: TrialRecord, epochs: int) -> TrialRecord:
        """Open a refit that goes on from a trial's last checkpoint, or return the one begun before.

        It begins anew where that checkpoint is gone, or was never the end of a schedule.
        """
        if not (count := self.taken_over(of)):
            longer = longer_config(self.space, of, epochs, of.config.seed)
            return self._open_again("refit", of, longer)
        taken = {"epochs": of.epochs, "continued_epochs": count}
        return self._open_again("refit", of, of.config.continued(epochs), **taken)

    def taken_over(self, of: TrialRecord) -> int:
        """Return how many epochs a continuation of a trial needn't train again."""
        files = self.trial_folder(of.number)
        is_there = files.checkpoint.exists() and files.weights_file.exists()
        return len(of.epochs) if of.can_be_continued and is_there else 0

    def open_fold(self, of: TrialRecord, fold: int) -> TrialRecord:
        """Open a trial's configuration on a fold, or return the one that was opened before."""
        return self._open_again("fold", of, of.config.model_copy(update={"fold": fold}))

    def _open_again(
        self, kind: str, of: TrialRecord, config: TrialConfig, **fields: Any
    ) -> TrialRecord:
        """Open a trial of another's changed configuration; or return it, unless given up.

        A refit of as many epochs by the same seed is one, whether it was continued or trained anew.
        """
        link = f"{kind}_of"
        with self._lock:
            for record in self._of_kind(kind):
                known = record.config
                same = all(getattr(known, it) == getattr(config, it) for it in TOLD_APART)
                is_given_up = record.state is TrialState.PRUNED
                if same and getattr(record, link) == of.number and not is_given_up:
                    return record
            record = self._begin(of.params, config, kind=kind, **{link: of.number}, **fields)
            for observer in self._observers:
                observer.trial_started(record)
            return record

    def report(
        self, number: int, epoch: int, row: Mapping[str, float], facts: Mapping[str, Any]
    ) -> TrialRecord:
        """Add epoch `epoch` (1-based) to a trial; an epoch that is there already changes nothing.

        `facts` are fields of the record that the first epoch brings to light.
        """
        with self._lock:
            record = self._records[number]
            if epoch != len(record.epochs) + 1:
                return record
            changes = {**facts, "epochs": (*record.epochs, dict(row))}
            grown = record.model_copy(update=changes)
            seconds = row.get(EPOCH_SECONDS, 0.0)
            self.longest_epoch_seconds = max(self.longest_epoch_seconds, seconds)
            is_known = all(getattr(record, name) == value for name, value in facts.items())
            if is_known and number in self._whole:
                self._records[number], self.heard_at = grown, self._clock()
                self.trial_folder(number).add_epoch(epoch, row)
            else:
                self._store(grown)
            record = grown
            for observer in self._observers:
                observer.epoch_ended(record)
            return record

    def end(self, number: int, state: TrialState, reason: str = "") -> TrialRecord:
        """Close a trial: write its state, and tell Optuna what the state means."""
        with self._lock:
            record = self._records[number]
            if record.state.is_finished():
                return record
            changes = {"state": state, "reason": masked(reason), "ended_at": time.time()}
            record = record.model_copy(update=changes)
            if record.sampler_number is not None and not record.stopped_by_budget:
                tell_end(self._optuna, record, self.study)
            if state is TrialState.INFEASIBLE and memory_varies(self.space):
                self._infeasible[number] = record
            return self._store(record)

    def leave(self, number: int) -> None:
        """Let the observers know that a closed trial has left all that it leaves."""
        with self._lock:
            record = self._records[number]
            for observer in self._observers:
                observer.trial_ended(record, self.trial_folder(number))

    def resend(self, observer: Tracker) -> None:
        """Tell an observer of all trials that have left what they leave.

        A call that was killed, or interrupted while lanes made logits, may have told it of none.
        """
        for record in self._all():
            files = self.trial_folder(record.number)
            if record.state.is_finished() and not lacks_logits(record, files):
                observer.trial_ended(record, files)

    def counts(self) -> dict[str, int]:
        """Return {state: number of the search's trials}."""
        with self._lock:
            states = [record.state for record in self.records]
            return {state.value: states.count(state) for state in TrialState}

    def best(self) -> list[TrialRecord]:
        """Return the search's trials by the study's metric, the best first.

        Complete ones come before pruned ones, which were judged on fewer epochs.
        """
        return best_first(self.records, self.study.objective)

    def _all(self) -> list[TrialRecord]:
        return [self._records[number] for number in sorted(self._records)]

    def _draw_strays_again(self) -> None:
        """Draw again what Optuna thinks is running but a killed process never recorded."""
        known = {record.sampler_number for record in self.records}
        running = self._optuna.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        for trial in running:
            if trial.number not in known:
                self._put_back(trial)

    def _tell_stopped_for_good(self) -> None:
        """Tell Optuna of trials that a budget stopped and that have no checkpoint any more."""
        for record in self.records:
            if record.stopped_by_budget and not self._goes_on(record):
                tell_end(self._optuna, record, self.study)

    def _put_back(self, drawn: optuna.trial.FrozenTrial) -> None:
        """Have what was drawn, or given, drawn again.

        It fails in Optuna after what takes its place is there: a kill between the two loses none.
        """
        point = {**drawn.system_attrs.get(FIXED_PARAMS, {}), **drawn.params}
        self.enqueue(point, is_drawn=not is_given(drawn))
        self._optuna.tell(drawn.number, state=optuna.trial.TrialState.FAIL)

    def enqueue(self, point: dict[str, Any], is_drawn: bool = False) -> None:
        """Have a point drawn before any other, unless it waits already.

        `is_drawn` tells what was drawn, and waits, from a point that the study was given.
        """
        waiting = self._optuna.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,))
        points = [trial.system_attrs.get(FIXED_PARAMS, {}) for trial in waiting]
        if point and not any(point.items() <= each.items() for each in points):
            self._optuna.enqueue_trial(point, user_attrs={DRAWN_AGAIN: True} if is_drawn else None)

    def _draw_fitting(self, fits: Fits) -> tuple[int, dict[str, Any], TrialConfig] | None:
        """Draw until something fits, a smaller backbone say; None after `UNFIT_DRAWS`."""
        unfit: list[tuple[int, dict[str, Any], TrialConfig]] = []
        try:
            while len(unfit) < UNFIT_DRAWS:
                drawn = self._draw()
                if fits(config := drawn[2], config.epochs):
                    return drawn
                unfit.append(drawn)
            return None
        finally:
            trials = self._optuna.get_trials(deepcopy=False) if unfit else []
            for number, _, _ in unfit:
                self._put_back(trials[number])

    def _draw(self) -> tuple[int, dict[str, Any], TrialConfig]:
        """Draw again what is certain not to fit, unless `LARGE_DRAWS` in a row are."""
        for left in reversed(range(LARGE_DRAWS)):
            trial, params, config = draw_valid(self._optuna, self.space, self._seed_of_next())
            limit = too_large(config, self._infeasible.values(), self.records)
            if limit is None or not left:
                break
            if limit.number not in self._avoided:
                self._avoided.add(limit.number)
                self.say(too_large_text(limit))
            trial.set_constraint(OUT_OF_MEMORY, 1.0)
            self._optuna.tell(trial.number, state=optuna.trial.TrialState.PRUNED)
        flush(trial)
        return trial.number, params, config

    def _seed_of_next(self) -> dict[str, int]:
        """Give each trial a seed of its own, unless the space has a say in it."""
        blocks = [self.space.shared, *self.space.blocks.values()]
        is_said = any("seed" in (*block.fixed, *block.search) for block in blocks)
        return {} if is_said else {"seed": self.study.seed + self._next_number()}

    def _begin(self, params: dict[str, Any], config: TrialConfig, **fields: Any) -> TrialRecord:
        """Begin the next trial: write its record."""
        study, number = self.study, self._next_number()
        more = {"params": params, "network_cost": self._network_cost(config), **fields}
        return self._store(
            TrialRecord.begin(study.name, number, config, study.manifest_hash, **more)
        )

    def _next_number(self) -> int:
        return max(self._records, default=-1) + 1

    def _store(self, record: TrialRecord) -> TrialRecord:
        self._records[record.number] = record
        self.heard_at = self._clock()
        self._whole.add(record.number)
        self.trial_folder(record.number).write_record(record)
        return record


def goes_on(record: TrialRecord, files: TrialFolder) -> bool:
    """Say whether the next call goes on with a trial: it was left running, or a budget stopped it.

    What a budget stopped has ended for good where its checkpoint is gone.
    """
    is_there = files.checkpoint.exists() and files.weights_file.exists()
    return not record.state.is_finished() or (record.stopped_by_budget and is_there)


def lacks_logits(record: TrialRecord, files: TrialFolder) -> bool:
    """Say whether a trial has ended without its logits, though its weights are there."""
    has_ended = record.state.is_finished() and bool(record.epochs)
    return has_ended and files.weights_file.exists() and not files.logits_file.exists()
