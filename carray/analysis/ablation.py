"""Ablation of a recipe: change one factor at a time, and compare it with the noise of seeds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carray.analysis.ablation_step import (
    KEEPS,
    AblationStep,
    Keep,
    SeedRuns,
    anchor_step,
    compare_steps,
)
from carray.data.manifest import Manifest
from carray.errors import ConfigError, DataError
from carray.json_file import JsonResult
from carray.predictions.candidates import candidate_of
from carray.predictions.logits import SplitPredictions
from carray.predictions.scores import log_losses
from carray.predictions.views import parse_tta_sets
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.search.setup import check_folds
from carray.search.space.distributions import Scalar
from carray.search.space.loading import load_space
from carray.search.space.space import SearchSpace
from carray.search.space.validation import checked
from carray.training.train import OnEpoch, Trainer
from carray.typing import Progress

LEAST_SEEDS = 3  # two say nothing of how far a third may be


@dataclass(frozen=True)
class Ablation(JsonResult):
    """All steps, in order."""

    study: str
    seeds: int
    seed_log_losses: tuple[float, ...]
    """Of the anchor, by seed."""
    steps: tuple[AblationStep, ...]


def run_ablation(
    data: str | os.PathLike[str],
    space: str | os.PathLike[str] = "logloss_ladder",
    *,
    seeds: int = LEAST_SEEDS,
    step_seeds: int = 1,
    keep: Keep = "better",
    study: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    tta: str | None = None,
    folds: int = 0,
    weights: str | os.PathLike[str] | None = None,
    runs: str | os.PathLike[str] | None = None,
    on_step: Callable[[AblationStep], None] | None = None,
    on_epoch: OnEpoch | None = None,
    progress: Progress = silent,
) -> Ablation:
    """Climb the ladder that a search space's starting points describe; resume where it stopped.

    The first point is the anchor and sets every searched name; each next one changes some. A step
    is better (worse) where its log-loss on `val` is lower (higher) by more than seeds of the anchor
    differ, by Student's t at 95 %, and the interval over the images excludes zero.

    Args:
        data: a folder made by `carray.prepare`.
        space: a YAML file, or the name of a shipped space.
        seeds: of the anchor; they give the noise.
        step_seeds: of every other step.
        keep: which steps the next one builds on: `better` ones, `all`, or `none` but the anchor.
        study: the folder of the trials; None takes the space's and the data's names.
        overrides: dotted names fixed for every step; a step that changes none of the rest is left
            out.
        tta: sets of views for a last step, as `carray.build_ensemble`; judged on `blend`.
        folds: train what stands on every fold as the last step; judged on `blend`. With `tta` too,
            one more step looks through views with the trials on all folds.
        weights: a folder of pretrained weights.
        runs: the runs folder.
        on_step: told every step as it ends.
        on_epoch: told every epoch.
        progress: shows how far images are.

    Raises:
        ConfigError: the space is no ladder, or `seeds` are too few.
        DataError, WeightsError, RecordError: as `carray.train`.
        TrialFailed: a trial of the ladder failed.
    """
    if seeds < LEAST_SEEDS or not 1 <= step_seeds <= seeds:
        raise ConfigError(
            f"--seeds {seeds} must be at least {LEAST_SEEDS} to know the noise, and --step-seeds "
            f"{step_seeds} from 1 to as many"
        )
    if keep not in KEEPS:
        raise ConfigError(f"--keep {keep!r} must be one of {', '.join(KEEPS)}")
    read = load_space(space)
    read = checked(read.with_fixed(overrides)) if overrides else read
    points = ablation_points(read)
    manifest = Manifest.load(data)
    _check_views_and_folds(manifest, tta, folds)
    name = study or f"{Path(str(space)).stem}-{manifest.name}"
    on_step = on_step or (lambda step: None)
    trainer = Trainer(manifest, RunsFolder.at(runs), name, weights, on_epoch, progress=progress)
    stands = anchor = _train_seeds(trainer, read, points[0], seeds)
    steps = [anchor_step(anchor)]
    on_step(steps[-1])
    for changes in points[1:]:
        tried = _train_seeds(trainer, read, {**stands.params, **changes}, step_seeds)
        what = ", ".join(f"{name} {value}" for name, value in changes.items())
        step = compare_steps(what, stands, tried, anchor, keep)
        stands = tried if step.stays and keep != "none" else stands
        steps.append(step)
        on_step(step)
    if tta or folds:
        from carray.analysis.ablation_on_blend import folds_step, tta_step

        where, one = (trainer.runs, name), stands.records[0]
        if tta:
            steps.append(tta_step(*where, [one.name], tta, progress))
            on_step(steps[-1])
        if folds:
            steps.append(folds_step(*where, one, folds, weights, on_epoch, progress))
            on_step(steps[-1])
        if folds and tta:
            steps.append(tta_step(*where, steps[-1].trials, tta, progress))
            on_step(steps[-1])
    means = tuple(float(loss) for loss in anchor.losses.mean(axis=1))
    return Ablation(name, seeds, means, tuple(steps))


def _check_views_and_folds(manifest: Manifest, tta: str | None, folds: int) -> None:
    """Refuse views and folds now that couldn't be had after hours of training."""
    check_folds(folds, manifest)
    if tta:
        parse_tta_sets(tta)
    if (tta or folds) and len(manifest.rows("blend")) == 0:
        raise DataError(f"{manifest.folder} has no blend split, which judges views and folds")


def ablation_points(space: SearchSpace) -> list[Mapping[str, Scalar]]:
    """Return the anchor, then what each step changes.

    Raises:
        ConfigError: the space has blocks or no starting points, or the anchor leaves a name open.
    """
    if space.blocks or len(space.starts) < 2:
        raise ConfigError(
            f"{space.name} is no ladder: it needs no backbone blocks and at least two starting "
            "points, the first the anchor"
        )
    anchor, *steps = space.starts
    missing = sorted(set(space.shared.search) - set(anchor))
    if missing:
        raise ConfigError(
            f"{space.name} is no ladder: its first starting point leaves {', '.join(missing)} open"
        )
    return [anchor, *(step for step in steps if step)]


def _train_seeds(
    trainer: Trainer, space: SearchSpace, params: Mapping[str, Scalar], seeds: int
) -> SeedRuns:
    """Return `seeds` complete trials of one configuration, and their losses on `val`."""
    configs = [space.resolve(params, {"seed": seed}) for seed in range(seeds)]
    records = tuple(trainer.trained(config) for config in configs)
    labels = trainer.manifest.labels[trainer.manifest.rows("val")]
    candidates = [candidate_of(trainer.folder, record) for record in records]
    predictions = SplitPredictions(candidates, "val", labels)
    log_ps = [predictions.log_p(member) for member in range(seeds)]
    losses = np.array([log_losses(log_p, labels) for log_p in log_ps], np.float64)
    right = np.array([log_p.argmax(axis=1) == labels for log_p in log_ps], np.float64)
    return SeedRuns(params, records, losses, right)
