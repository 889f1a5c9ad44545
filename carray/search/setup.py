"""What a study is asked to do, checked whole before anything starts."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from carray.config import TrialConfig, build_config
from carray.data.manifest import Manifest
from carray.data.pixels.store import open_store
from carray.errors import ConfigError, DataError, RecordError
from carray.files import write_text
from carray.progress import progress
from carray.provenance import git_commit
from carray.records import HELD_SPLITS, RunsFolder, StudyFolder, StudyRecord, TrialRecord
from carray.search.ledger import Ledger, lacks_logits
from carray.search.placement.plan import AUTO, Node, Plan, make_plan
from carray.search.request import (
    DEFAULT_TRIALS,
    StudyRequest,
    check_numbers,
    check_refits,
    refit_epochs,
    sampler_name,
)
from carray.search.sampling.samplers import BLIND, build_sampler
from carray.search.sampling.storage import open_optuna_study
from carray.search.scheduling.schedulers import (
    DEFAULT_SCHEDULER,
    build_scheduler,
    default_grace_epochs,
)
from carray.search.space.loading import load_space
from carray.search.space.space import SearchSpace
from carray.search.space.validation import checked
from carray.search.warm_start.starting_points import NO_STARTS, shipped_points, start_points
from carray.tracking import Tracker

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial
    from ray.tune.schedulers import TrialScheduler


def resolve_space(request: StudyRequest) -> SearchSpace:
    """Read the space, with what the request fixes in it."""
    space = load_space(request.space)
    fixed = dict(request.overrides)
    if request.max_epochs is not None:
        fixed["epochs"] = request.max_epochs
    return checked(space.with_fixed(fixed)) if fixed else space


def resolve_starting_points(
    request: StudyRequest, space: SearchSpace, runs: RunsFolder
) -> list[dict[str, Any]]:
    """Return the points to try first: the request's, else the space's, else the shipped ones.

    A space that says where to start is believed, and a study that draws blindly is left alone.
    """
    if request.start_from == (NO_STARTS,):
        return []
    if request.start_from:
        return start_points(space, request.start_from, runs)
    if space.starts or sampler_name(request, space) in BLIND:
        return space.start_points()
    return shipped_points(space)


def check_names(space: SearchSpace) -> None:
    """Refuse a backbone or a tag that timm doesn't know; imports timm, which takes seconds."""
    from carray.models.registry import check_name

    for name in {config.backbone: None for config in _one_config_a_branch(space)}:
        check_name(name)


def check_classifiers(space: SearchSpace, manifest: Manifest, weights: Path | None) -> None:
    """Refuse a backbone that can't be built, and weights that aren't there or don't fit."""
    from carray.models.classifier import check_backbone

    for config in _one_config_a_branch(space):
        check_backbone(config, len(manifest.classes), weights)


def _one_config_a_branch(space: SearchSpace) -> Iterator[TrialConfig]:
    """Yield a config for every backbone and source of weights that a trial may have."""
    seen = set()
    for _, block in space.branches():
        ends = {name: drawn.ends()[0] for name, drawn in block.search.items()}
        for backbone in block.values_of("backbone"):
            for pretrained in block.values_of("pretrained"):
                if (backbone, pretrained) not in seen:
                    seen.add((backbone, pretrained))
                    chosen = {"backbone": backbone, "pretrained": pretrained}
                    yield build_config({**block.fixed, **ends, **chosen})


def build_stores(manifest: Manifest, space: SearchSpace) -> None:
    """Decode the images now, in view, at every size that is known before trials are drawn."""
    inputs = set()
    for _, block in space.branches():
        for size in block.values_of("image_size"):
            for fit in block.values_of("fit"):
                config = build_config({"image_size": size, "fit": fit})
                inputs.add((config.image_size, config.fit))
    for image_size, image_fit in sorted(inputs):
        open_store(manifest, image_size, image_fit, progress)


def open_record(
    request: StudyRequest, runs: RunsFolder, manifest: Manifest, space: SearchSpace
) -> tuple[StudyFolder, StudyRecord]:
    """Return the study's folder and its record: the stored one extended, or a new one."""
    name = request.name or f"{Path(request.space).stem}-{manifest.folder.resolve().name}"
    if not name or set(name) & set('/\\:*?"<>|') or name.startswith("."):
        raise ConfigError(f"--study {name!r} can't name a folder; use letters, digits, - and _")
    check_numbers(request)
    folder = runs.study(name)
    max_epochs = _max_epochs(space)
    if request.refit:
        check_refits(space, refit_epochs(request, max_epochs))
    fresh = StudyRecord(
        name=name,
        data=str(manifest.folder.resolve()),
        manifest_hash=manifest.hash,
        classes=manifest.classes,
        metric=space.metric,
        space_file=str(request.space),
        space_hash=space.hash,
        sampler=sampler_name(request, space),
        scheduler=request.scheduler or space.scheduler or DEFAULT_SCHEDULER,
        trials=request.trials or space.trials or DEFAULT_TRIALS,
        max_epochs=max_epochs,
        seed=request.seed,
        started_at=time.time(),
        git_commit=git_commit(),
    )
    build_sampler(fresh.sampler, fresh.seed)
    scheduler_of(request, space, fresh)
    check_folds(request.folds, manifest)
    if request.gpus_per_trial == AUTO and request.workers_per_trial > 1:
        raise ConfigError(
            f"--gpus-per-trial auto packs trials of one rank, not of {request.workers_per_trial}; "
            "use --workers-per-trial 1, or give a number of GPUs"
        )
    study = _resumed(folder.record(), fresh) if folder.record_file.exists() else fresh
    if request.refit > study.trials:
        raise ConfigError(f"--refit {request.refit} must be at most --trials {study.trials}")
    return folder, study


def scheduler_of(
    request: StudyRequest,
    space: SearchSpace,
    study: StudyRecord,
    ended: Sequence[TrialRecord] = (),
) -> TrialScheduler:
    """Build the study's scheduler; `ended` trials of earlier calls take part in its cutoffs."""
    grace_epochs = request.grace_epochs
    if grace_epochs is None:
        grace_epochs = space.grace_epochs or default_grace_epochs(study.max_epochs)
    return build_scheduler(
        study.scheduler,
        metric=study.metric,
        direction=study.direction,
        max_epochs=study.max_epochs,
        grace_epochs=grace_epochs,
        reduction_factor=request.reduction_factor,
        ended=ended,
    )


def check_folds(folds: int, manifest: Manifest) -> None:
    """Refuse a number of folds that the data weren't cut into.

    Raises:
        DataError: they were cut into another number, or into none.
    """
    if folds and folds != manifest.num_folds:
        raise DataError(
            f"--folds {folds} asks for {folds} folds and {manifest.folder} has "
            f"{manifest.num_folds}: `carray data prepare ... --folds {folds}` cuts them"
        )


def _resumed(stored: StudyRecord, fresh: StudyRecord) -> StudyRecord:
    """Return the stored record with this call's budget; what the trials share must not change."""
    space = "search space, --set or --max-epochs"
    for what, name in (("data set", "manifest_hash"), (space, "space_hash")):
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
    return max(int(e) for _, block in space.branches() for e in block.values_of("epochs"))


def plan_study(
    request: StudyRequest,
    study: StudyRecord,
    records: Sequence[TrialRecord],
    nodes: Sequence[Node],
) -> Plan:
    """Fit what is left of the study to the cluster; raises PlanError if it doesn't.

    The GPUs of a trial are a number by now.
    """
    ended = sum(record.state.is_finished() for record in records if record.kind == "search")
    return make_plan(
        nodes,
        trials=max(1, study.trials - ended, request.refit, request.folds),
        workers=request.workers_per_trial,
        gpus_per_trial=None if request.gpus_per_trial is None else float(request.gpus_per_trial),
        cpus_per_worker=request.cpus_per_worker,
        concurrent=request.concurrent,
    )


def refit_plan(request: StudyRequest, study: StudyRecord, nodes: Sequence[Node]) -> Plan:
    """Plan refits and folds: few long trials on all that the whole study could take.

    What is left of the study doesn't count, so one that goes on refits with as many ranks.
    """
    whole, most = plan_study(request, study, (), nodes), max(request.refit, request.folds)
    return whole.widened(most) if most else whole


def has_pending_trials(
    folder: StudyFolder, study: StudyRecord, records: Sequence[TrialRecord]
) -> bool:
    """Say whether the study has a trial to open, to go on with or to finish."""
    searched = [record for record in records if record.kind == "search"]
    return (
        len(searched) < study.trials
        or any(not record.state.is_finished() for record in searched)
        or any(lacks_logits(record, folder.trial(record.number)) for record in records)
    )


def write_files(folder: StudyFolder, space: SearchSpace, manifest: Manifest) -> None:
    """Write what the study's folder begins with; its record, which makes it one, comes last."""
    write_text(folder.space_file, space.text)
    folder.write_labels({s: manifest.labels[manifest.rows(s)] for s in HELD_SPLITS})


@contextmanager
def open_ledger(
    request: StudyRequest,
    folder: StudyFolder,
    study: StudyRecord,
    space: SearchSpace,
    starts: list[dict[str, Any]],
    records: Sequence[TrialRecord],
    observers: Sequence[Tracker],
) -> Iterator[Ledger]:
    """Open Optuna's study and the ledger over it; a new study tries the `starts` first.

    Optuna's storage is closed in the end.

    Raises:
        RecordError: the storage can't be opened, or isn't this study's.
    """
    storage = request.storage or f"sqlite:///{folder.optuna_file}"
    # a resumed one must not repeat what it drew
    sampler = build_sampler(study.sampler, study.seed + len(records))
    with open_optuna_study(study.name, study.direction, storage, sampler) as optuna_study:
        told = optuna_study.get_trials(deepcopy=False)
        _check_optuna_trials(folder, records, told, storage)
        ledger = Ledger(folder, study, space, optuna_study, observers, records)
        if not records:  # and perhaps some points that a process killed here has left
            for point in starts:
                ledger.enqueue(point)
        yield ledger


def _check_optuna_trials(
    folder: StudyFolder, records: Sequence[TrialRecord], told: Sequence[FrozenTrial], storage: str
) -> None:
    """Refuse a storage that lacks this study's trials, or holds another study of its name."""
    name = folder.path.name
    known = {trial.number for trial in told if trial.state is not TrialState.WAITING}
    numbers = {r.sampler_number for r in records if r.sampler_number is not None}
    if lacking := numbers - known:
        raise RecordError(
            f"{storage} lacks {len(lacking)} trials of study {name!r}: give the --storage that it "
            f"was begun with, or begin another with --study NAME --start-from {name}"
        )
    if not records and any(t.state in (TrialState.COMPLETE, TrialState.PRUNED) for t in told):
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
