"""A ladder: one factor changed at a time, each step better, worse or within the noise of seeds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from carray.config import TrialConfig
from carray.data.manifest import Manifest
from carray.data.parallel import Progress
from carray.ensemble.blend import losses_of
from carray.ensemble.logits import log_softmax
from carray.ensemble.statistics import Interval, bootstrap_means, interval, scores_of
from carray.ensemble.tta import wanted_ttas
from carray.errors import ConfigError, DataError, TrialFailed
from carray.progress import silent
from carray.records import RunsFolder, TrialRecord, TrialState
from carray.search.distributions import Scalar
from carray.search.opening import check_folds
from carray.search.space import SearchSpace
from carray.training.folds import find_complete
from carray.training.single import OnEpoch, train

BETTER, WORSE, NOISE = "better", "worse", "within noise"
Keep = Literal["better", "all", "none"]
KEEPS: tuple[Keep, ...] = ("better", "all", "none")
Values = npt.NDArray[np.float64]
LEAST_SEEDS = 3  # two say nothing of how far a third may be


@dataclass(frozen=True)
class Step:
    """One step of the ladder, compared with what stood before it."""

    name: str
    """What it changes, as in `image_size 384`; `anchor`."""
    trials: tuple[str, ...]
    images: int
    split: str
    log_loss: Interval
    """Of the images; seeds are averaged."""
    top1: Interval
    gain: Interval | None
    """Log-loss of what stood minus the step's, paired by image: above zero is better."""
    noise: float
    """A gain that another seed alone may bring, at 95 %."""
    verdict: str
    """`better`, `worse` or `within noise`; "" of the anchor."""
    stays: bool


@dataclass(frozen=True)
class Ladder:
    """All steps, in order."""

    study: str
    seeds: int
    seed_log_losses: tuple[float, ...]
    """Of the anchor, by seed."""
    steps: tuple[Step, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Standing:
    """Some seeds of one configuration: what they cost each image of `val`."""

    params: Mapping[str, Scalar]
    records: tuple[TrialRecord, ...]
    losses: Values
    """(seeds, images)."""
    right: Values
    """(seeds, images), 1 where right."""


def climb(
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
    on_step: Callable[[Step], None] | None = None,
    on_epoch: OnEpoch | None = None,
    progress: Progress = silent,
) -> Ladder:
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
        folds: train what stands on every fold as the last step; judged on `blend`.
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
    read = SearchSpace.load(space)
    read = read.with_fixed(overrides) if overrides else read
    points = ladder_points(read)
    manifest = Manifest.load(Path(data))
    _check_last_steps(manifest, tta, folds)
    name = study or f"{Path(str(space)).stem}-{manifest.folder.name}"
    run = _Runner(manifest, read, name, RunsFolder.at(runs), weights, on_epoch, progress)
    stands = anchor = run.standing(points[0], seeds)
    steps = [_anchor_step(anchor)]
    _tell(on_step, steps[-1])
    for changes in points[1:]:
        tried = run.standing({**stands.params, **changes}, step_seeds)
        step = compare_steps(_words(changes), stands, tried, anchor, keep)
        stands = tried if step.stays and keep != "none" else stands
        steps.append(step)
        _tell(on_step, step)
    if tta or folds:
        from carray.lab.ladder_last import folds_step, tta_step

        where = (run.runs, name, stands.records[0])
        if tta:
            steps.append(tta_step(*where, tta, progress))
            _tell(on_step, steps[-1])
        if folds:
            steps.append(folds_step(*where, folds, weights, on_epoch, progress))
            _tell(on_step, steps[-1])
    means = tuple(float(loss) for loss in anchor.losses.mean(axis=1))
    return Ladder(name, seeds, means, tuple(steps))


def _check_last_steps(manifest: Manifest, tta: str | None, folds: int) -> None:
    """Refuse views and folds now that couldn't be had after hours of training."""
    check_folds(folds, manifest)
    if tta:
        wanted_ttas(tta)
    if (tta or folds) and len(manifest.rows("blend")) == 0:
        raise DataError(f"{manifest.folder} has no blend split, which judges views and folds")


def ladder_points(space: SearchSpace) -> list[Mapping[str, Scalar]]:
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


@dataclass(frozen=True)
class _Runner:
    """Trains configurations of the ladder, or finds them trained."""

    manifest: Manifest
    space: SearchSpace
    study: str
    runs: RunsFolder
    weights: str | os.PathLike[str] | None
    on_epoch: OnEpoch | None
    progress: Progress

    def standing(self, params: Mapping[str, Scalar], seeds: int) -> Standing:
        """Return `seeds` complete trials of one configuration, and their losses on `val`."""
        configs = [self.space.resolve(params, {"seed": seed}) for seed in range(seeds)]
        records = tuple(self._trained(config) for config in configs)
        labels = self.manifest.labels[self.manifest.rows("val")]
        losses, right = [], []
        for record in records:
            log_p = log_softmax(self.runs.study(self.study).trial(record.number).logits("val"))
            losses.append(losses_of(log_p, labels))
            right.append(log_p.argmax(axis=1) == labels)
        return Standing(params, records, np.array(losses, np.float64), np.array(right, np.float64))

    def _trained(self, config: TrialConfig) -> TrialRecord:
        found = find_complete(self.runs, self.study, config, self.manifest.hash)
        if found:
            return found
        record = train(
            self.manifest.folder,
            config,
            runs=self.runs.path,
            study=self.study,
            weights=self.weights,
            on_epoch=self.on_epoch,
            progress=self.progress,
        )
        if record.state is not TrialState.COMPLETE:
            raise TrialFailed(f"trial {record.name} of the ladder {record.state}: {record.reason}")
        return record


def _words(changes: Mapping[str, Scalar]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items())


def _tell(on_step: Callable[[Step], None] | None, step: Step) -> None:
    if on_step:
        on_step(step)


def _anchor_step(anchor: Standing) -> Step:
    noise = seed_noise(anchor.losses, 1, 1)
    return _step("anchor", anchor, None, noise, "", stays=True)


def compare_steps(
    name: str, stands: Standing, tried: Standing, anchor: Standing, keep: Keep
) -> Step:
    """Say whether `tried` is better than what stands, by more than the anchor's seeds differ."""
    gains_N = stands.losses.mean(axis=0) - tried.losses.mean(axis=0)
    gain = interval(float(gains_N.mean()), bootstrap_means(gains_N[:, None])[:, 0])
    noise = seed_noise(anchor.losses, len(stands.records), len(tried.records))
    verdict = NOISE
    if abs(gain.value) > noise and gain.excludes_zero():
        verdict = BETTER if gain.value > 0 else WORSE
    stays = keep == "all" or (keep == "better" and verdict == BETTER)
    return _step(name, tried, gain, noise, verdict, stays=stays)


def seed_noise(anchor_SN: Values, first: int, second: int) -> float:
    """Return how far means over `first` and `second` seeds may differ by chance, at 95 %."""
    from scipy.stats import t

    per_seed = anchor_SN.mean(axis=1)
    deviation = float(per_seed.std(ddof=1))
    quantile = float(t.ppf(0.975, len(per_seed) - 1))
    return quantile * deviation * math.sqrt(1 / first + 1 / second)


def _step(
    name: str,
    tried: Standing,
    gain: Interval | None,
    noise: float,
    verdict: str,
    *,
    stays: bool,
) -> Step:
    losses = tried.losses.mean(axis=0)
    scores = scores_of(losses, tried.right.mean(axis=0))
    names = tuple(record.name for record in tried.records)
    told = (scores.log_loss, scores.top1, gain, noise, verdict, stays)
    return Step(name, names, len(losses), "val", *told)
