"""`StudySetup`: a study's request resolved and checked before anything starts."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from carray.config import Fit, build_config
from carray.data.manifest import Manifest
from carray.data.pixels.store import open_store
from carray.errors import ConfigError, DataError, RecordError, counted
from carray.files import absolute, sqlite_url, write_text
from carray.progress import progress
from carray.provenance import git_commit
from carray.records import HELD_SPLITS, StudyFolder, StudyRecord, TrialRecord
from carray.runs_folder import RunsFolder
from carray.search.extension import asks_for_more_epochs
from carray.search.ledger import Ledger
from carray.search.objectives import NetworkTimer, directions, with_objectives
from carray.search.placement.plan import AUTO
from carray.search.request import (
    DEFAULT_TRIALS,
    StudyRequest,
    check_numbers,
    check_refits,
    refit_count,
    sampler_name,
)
from carray.search.sampling.local import LocalSampler
from carray.search.sampling.samplers import build_sampler
from carray.search.sampling.storage import open_optuna_study, without_password
from carray.search.scheduling.refits import leaves_refits_open, refit_lengths
from carray.search.scheduling.schedulers import (
    DEFAULT_SCHEDULER,
    build_scheduler,
    default_grace_epochs,
)
from carray.search.setting_notes import setting_notes
from carray.search.space.space import SearchSpace
from carray.search.space.weights import has_weights, one_config_a_branch
from carray.search.study_space import resolve_space, study_name
from carray.search.warm_start.first_trials import StartingPoints, resolve_starting_points
from carray.tracking import Tracker

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from ray.tune.schedulers import TrialScheduler


@dataclass(frozen=True, kw_only=True)
class StudySetup:
    """A study as a request asks for it, resolved once; all that runs it takes this."""

    request: StudyRequest
    """For what needs no resolving: placement, budgets, the numbers of refits and folds."""
    runs: RunsFolder
    folder: StudyFolder
    manifest: Manifest
    space: SearchSpace
    """With what the request fixes in it."""
    space_note: str
    """Which space it is and why, where the request names none; else ""."""
    study: StudyRecord
    """The stored one extended, or a new one, not written yet."""
    starts: StartingPoints
    """What is tried first."""
    grace_epochs: int
    """Epochs that every trial gets before the scheduler may stop it."""
    refit_lengths: tuple[int, ...]
    storage: str
    """Optuna's, a URL."""
    weights: str | None
    """Absolute path of the folder of pretrained weights; None: `$CARRAY_WEIGHTS`."""

    @property
    def has_optuna_file(self) -> bool:
        """Whether Optuna's study is in the study's folder, not in a database elsewhere."""
        return self.storage == sqlite_url(self.folder.optuna_file)

    @property
    def notes(self) -> list[str]:
        """What of the request is to be said before the plan."""
        asked, begun = self.request.trials, self.study.trials
        fewer = f"--trials {asked} ends no study early: this one was begun with {begun}"
        is_fewer = asked is not None and asked < begun
        return [*([self.space_note] if self.space_note else []), *([fewer] if is_fewer else [])]

    @classmethod
    def resolve(cls, request: StudyRequest) -> StudySetup:
        """Read what the request names, and check it whole before anything starts.

        Raises:
            CarrayError: it can't be carried out; nothing was written.
        """
        runs, manifest = RunsFolder.at(request.runs), Manifest.load(request.data)
        space, note = resolve_space(request, manifest, runs)
        name = study_name(request, space, manifest)
        folder = runs.study(name)
        request, space = with_objectives(request, space, folder)
        starts = resolve_starting_points(request, space, runs, manifest.hash)
        check_numbers(request)
        study = new_record(request, name, manifest, space)
        setup = cls(
            request=request,
            runs=runs,
            folder=folder,
            manifest=manifest,
            space=space,
            space_note=note,
            study=study,
            starts=starts,
            grace_epochs=resolve_grace_epochs(request, space, study.max_epochs),
            refit_lengths=refit_lengths(request, study.max_epochs, space),
            storage=storage_of(request, folder),
            weights=absolute(request.weights),
        )
        check_setup(setup)
        study = extended_record(setup)
        if not setup.has_optuna_file:
            study = study.model_copy(update={"storage": without_password(setup.storage)})
        space = space if study.recipe else replace(space, recipe=False)  # as it was begun
        return replace(setup, study=study, space=space)


def storage_of(request: StudyRequest, folder: StudyFolder) -> str:
    """Return the URL of Optuna's storage: asked for, `$CARRAY_STORAGE`, as begun, or a file."""
    asked = request.storage or os.environ.get("CARRAY_STORAGE")
    begun = folder.record().storage if folder.record_file.exists() else ""
    return asked or begun or sqlite_url(folder.optuna_file)


def resolve_grace_epochs(request: StudyRequest, space: SearchSpace, max_epochs: int) -> int:
    """Return the request's epochs of grace, else the space's, else those of so long trials."""
    if request.grace_epochs is not None:
        return request.grace_epochs
    return space.grace_epochs or default_grace_epochs(max_epochs)


def check_classifiers(setup: StudySetup, others_have_weights: bool = False) -> list[str]:
    """Refuse a backbone that can't be built, weights that aren't there, a transform that fails.

    Args:
        setup: of the study.
        others_have_weights: whether those that this machine can't have are no matter, since other
            machines train; these have been asked for them.

    Returns:
        What is to be said of its settings: `setting_notes`.
    """
    from carray.models.classifier import check_backbone
    from carray.training.teacher import check_teacher

    for config in one_config_a_branch(setup.space):
        source = config.backbone, config.pretrained
        if others_have_weights and not has_weights(*source, setup.weights):
            config = config.model_copy(update={"pretrained": False})
        check_backbone(config, len(setup.manifest.classes), setup.weights)
        check_teacher(config, setup.manifest)
    side = max(size for size, _ in store_inputs(setup.space))
    return setting_notes(setup.space, setup.manifest, side)


def build_stores(setup: StudySetup) -> None:
    """Decode the images now, in view, at every size that is known before trials are drawn."""
    again = [setup.space.with_fixed(setup.space.refit)] if refit_count(setup.request) else []
    inputs = {each for space in (setup.space, *again) for each in store_inputs(space)}
    for image_size, image_fit in sorted(inputs):
        open_store(setup.manifest, image_size, image_fit, progress)


def store_inputs(space: SearchSpace) -> list[tuple[int, Fit]]:
    """Return (image size, fit) of the pixel stores that a space's trials are known to read."""
    inputs = set()
    for _, block in space.branches():
        for size in block.values_of("image_size"):
            for fit in block.values_of("fit"):
                config = build_config({"image_size": size, "fit": fit})
                inputs.add((config.image_size, config.fit))
    return sorted(inputs)


def new_record(
    request: StudyRequest, name: str, manifest: Manifest, space: SearchSpace
) -> StudyRecord:
    """Return the record of a study that begins now."""
    return StudyRecord(
        name=name,
        data=manifest.where,
        cut=manifest.cut,
        manifest_hash=manifest.hash,
        classes=manifest.classes,
        metric=space.metric,
        objectives=request.objectives,
        space_file=space.name,
        space_hash=space.hash,
        sampler=sampler_name(request, space),
        scheduler=request.scheduler or space.scheduler or DEFAULT_SCHEDULER,
        trials=request.trials or space.trials or DEFAULT_TRIALS,
        max_epochs=max(_epochs(space)),
        seed=request.seed,
        recipe=space.recipe,
        command=request.command,
        started_at=time.time(),
        git_commit=git_commit(),
    )


def check_setup(setup: StudySetup) -> None:
    """Refuse what can't be carried out, by what was asked and read alone.

    Raises:
        ConfigError: refits, the sampler, the scheduler or the placement can't be had so.
        DataError: the data set was cut into another number of folds, or has no image to judge by.
    """
    request, study = setup.request, setup.study
    for fold in {config.fold for config in one_config_a_branch(setup.space)}:
        setup.manifest.training_rows(fold)
    if refit_count(request):
        fewest = min(_epochs(setup.space)) + (not leaves_refits_open(request))
        for epochs in setup.refit_lengths:
            check_refits(setup.space, epochs, fewest)
    build_sampler(study.sampler, study.seed)
    scheduler_of(setup)
    check_folds(request.folds, setup.manifest)
    check_fold_numbers(request.fold, setup.manifest)
    if request.gpus_per_trial == AUTO and request.workers_per_trial > 1:
        raise ConfigError(
            f"--gpus-per-trial auto packs trials of one rank, not of {request.workers_per_trial}; "
            "use --workers-per-trial 1, or give a number of GPUs"
        )


def scheduler_of(setup: StudySetup, ended: Sequence[TrialRecord] = ()) -> TrialScheduler:
    """Build the study's scheduler; `ended` trials of earlier calls take part in its cutoffs."""
    study = setup.study
    return build_scheduler(
        study.scheduler,
        metric=study.metric,
        direction=study.direction,
        max_epochs=study.max_epochs,
        grace_epochs=setup.grace_epochs,
        reduction_factor=setup.request.reduction_factor,
        ended=ended,
    )


def check_folds(folds: int, manifest: Manifest) -> None:
    """Refuse a number of folds that the data weren't cut into.

    Raises:
        DataError: they were cut into another number, or into none.
    """
    if folds and folds != manifest.num_folds:
        raise DataError(
            f"--folds {folds} asks for {counted(folds, 'fold')} and {manifest.folder} has "
            f"{manifest.num_folds}: `carray data prepare ... --folds {folds}` cuts them"
        )


def check_fold_numbers(numbers: Sequence[int], manifest: Manifest) -> None:
    """Refuse folds that the data haven't; raises DataError."""
    wrong = [number for number in numbers if not 0 <= number < manifest.num_folds]
    if not wrong:
        return
    has = f"folds 0 to {manifest.num_folds - 1}" if manifest.num_folds else "no folds"
    raise DataError(
        f"--fold {wrong[0]} must be one of {manifest.folder}, which has {has}: `carray data "
        "prepare ... --folds K` cuts them"
    )


def extended_record(setup: StudySetup) -> StudyRecord:
    """Return the study's record: the stored one with this call's budget, or the new one.

    Raises:
        ConfigError: more refits are asked for than the study has trials.
        RecordError: the stored one is of other data or another space.
    """
    folder, study, refit = setup.folder, setup.study, setup.request.refit or 0
    study = _resumed(setup, folder.record()) if folder.record_file.exists() else study
    if refit > study.trials:
        raise ConfigError(f"--refit {refit} must be at most --trials {study.trials}")
    return study


def _resumed(setup: StudySetup, stored: StudyRecord) -> StudyRecord:
    """Return the stored record with this call's budget; what the trials share must not change."""
    if stored.kind == "single":
        raise RecordError(
            f"study {stored.name!r} collects trainings outside a search, and can't be searched: "
            "give the search another name with --study"
        )
    fresh, request = setup.study, setup.request
    state, data = setup.folder.state(), setup.manifest
    is_longer = asks_for_more_epochs(stored, state, request, data, setup.runs)
    space = "search space, --set or --max-epochs"
    has_fewer = request.max_epochs is not None and request.max_epochs < stored.max_epochs
    fewer = f", and trains {stored.max_epochs} epochs or more" if has_fewer else ""
    for what, name in (("data set", "manifest_hash"), (space, "space_hash")):
        if getattr(stored, name) != getattr(fresh, name) and not (what is space and is_longer):
            raise RecordError(
                f"study {stored.name!r} was begun with another {what} "
                f"({getattr(stored, name)[:8]}, now {getattr(fresh, name)[:8]}){fewer}; give this "
                "one another name with --study"
            )
    names = ("recipe", "started_at", "tracking", "cost", "extended_from")
    changes = {name: getattr(stored, name) for name in names}
    changes["seconds"] = stored.worked_seconds
    if is_longer:
        changes["extended_from"] = stored.max_epochs
    is_extended = changes["extended_from"] is not None
    most = stored.trials if is_extended and request.trials is None else fresh.trials
    return fresh.model_copy(update={**changes, "trials": max(stored.trials, most)})


def _epochs(space: SearchSpace) -> list[int]:
    """Return how many epochs a trial may have; the most are the scheduler's full length."""
    return [int(e) for _, block in space.branches() for e in block.values_of("epochs")]


def write_files(setup: StudySetup) -> None:
    """Write what the study's folder begins with; its record, which makes it one, comes last."""
    folder, manifest = setup.folder, setup.manifest
    write_text(folder.space_file, setup.space.text)
    folder.write_labels({s: manifest.labels[manifest.rows(s)] for s in HELD_SPLITS})


@contextmanager
def open_ledger(
    setup: StudySetup, records: Sequence[TrialRecord], observers: Sequence[Tracker]
) -> Iterator[Ledger]:
    """Open Optuna's study and the ledger over it; a new study tries its starting points first.

    Optuna's storage is closed in the end.

    Raises:
        RecordError: the storage can't be opened, or isn't this study's.
    """
    folder, study, storage = setup.folder, setup.study, setup.storage
    # a resumed one must not repeat what it drew
    sampler = build_sampler(study.sampler, study.seed + len(records), study.trials)
    with open_optuna_study(study.name, directions(study), storage, sampler) as optuna_study:
        trials = optuna_study.get_trials(deepcopy=False)
        _check_optuna_trials(folder, records, trials, storage)
        timer = NetworkTimer(folder, len(study.classes), study.objectives)
        ledger = Ledger(folder, study, setup.space, optuna_study, observers, records, timer)
        if isinstance(sampler, LocalSampler) and setup.request.goal == "ensemble":
            sampler.anchors = lambda: ledger.members.weights(ledger.records)
        if not records:  # and perhaps some points that a process killed here has left
            for point in setup.starts.points:
                ledger.enqueue(point)
        yield ledger


def _check_optuna_trials(
    folder: StudyFolder, records: Sequence[TrialRecord], trials: Sequence[FrozenTrial], storage: str
) -> None:
    """Refuse a storage that lacks this study's trials, or holds another study of its name."""
    name = folder.path.name
    known = {trial.number for trial in trials if trial.state is not TrialState.WAITING}
    numbers = {r.sampler_number for r in records if r.sampler_number is not None}
    if lacking := numbers - known:
        raise RecordError(
            f"{storage} lacks {counted(len(lacking), 'trial')} of study {name!r}: give the "
            f"--storage that it was begun with, or begin another with --study NAME "
            f"--start-from {name}"
        )
    if not records and any(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in trials):
        raise RecordError(
            f"{storage} holds a study {name!r} whose trials aren't in {folder.path}; name another "
            "with --study"
        )


@contextmanager
def locked_study(folder: StudyFolder) -> Iterator[None]:
    """Hold the study against a second driver; leave no folder of a study that was refused."""
    with folder.locked():
        is_new = len(list(folder.path.iterdir())) == 1  # the lock alone
        try:
            yield
        finally:
            if not folder.record_file.exists():
                shutil.rmtree(folder.path if is_new else folder.cache, ignore_errors=True)
