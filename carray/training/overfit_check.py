"""Overfit check: a configuration that can't fit 32 images will not learn thousands."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from carray import metrics
from carray.config import TrialConfig, build_config
from carray.data.manifest import Manifest
from carray.errors import ConfigError, TrialFailed, counted
from carray.models.classifier import check_backbone
from carray.models.recipes import complete_config
from carray.models.scratch import wider
from carray.progress import silent
from carray.training.compute.out_of_memory import infeasible_message, is_out_of_memory
from carray.training.dataset import TrialData, open_data
from carray.training.evaluation import evaluate
from carray.training.loop import train_one_epoch
from carray.training.ranks import SoloRanks
from carray.training.train import default_device
from carray.training.trial_state import LiveTrial, build_live, check_precision
from carray.typing import Progress, Rows

IMAGES, IMAGES_PER_CLASS = 32, 4
MOST_PASSES = 200
ENOUGH_PASSES = 80  # to be below chance
CHECK_EVERY = 10  # passes between two looks in eval mode while the loss is high
LOW_LOSS = 0.2  # of chance: from here each pass is followed by a look in eval mode
ENOUGH_TOP1 = 0.95
LOW_LR, HIGH_LR = 1e-4, 1e-2
LOOKED_FOR_CURE = 0.4  # share of the time that is left for a run with another lr
REGULARISATION_OFF: dict[str, Any] = {
    "augment.strength": 0.0,
    "augment.flip": False,
    "augment.blur": 0.0,
    "augment.perspective": 0.0,
    "augment.transform": "",
    "augment.mixup": 0.0,
    "augment.cutmix": 0.0,
    "augment.mix_off_epochs": 0,
    "dropout": 0.0,
    "drop_path": 0.0,
    "scratch.dropout": 0.0,
    "loss.label_smoothing": 0.0,
    "optimizer.weight_decay": 0.0,
    "schedule.name": "constant",
    "schedule.warmup_epochs": 0.0,
    "ema_decay": 0.0,
    "accumulation": 1,
    "fold": None,
    "epochs": MOST_PASSES,
}


@dataclass(frozen=True)
class OverfitResult:
    """What a try to overfit a few images showed."""

    backbone: str
    passed: bool
    reason: str
    out_of_time: bool
    """Whether the loss was still falling when the time was over: then nothing is proven."""
    images: int
    passes: int
    """Times that every image was trained on."""
    seconds: float
    losses: tuple[float, ...]
    """Training loss of each pass."""
    chance: float
    """The loss of saying the same for every image."""
    top1: float
    """Share of the images told right in eval mode, at the end."""


def sanity(
    data: str | os.PathLike[str],
    config: TrialConfig | Mapping[str, Any] | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    images: int = IMAGES,
    seconds: float = 100.0,
    progress: Progress = silent,
) -> OverfitResult:
    """Try to overfit a few training images with all regularisation off; say pass or fail and why.

    Backbone, head, lr, optimizer, image size and batch stay the configuration's own; policies
    that free layers later free them at once. After a failure another lr is tried in the time left.

    Args:
        data: a folder made by `carray.prepare`.
        config: a `TrialConfig`, or dotted names and values, as `carray.train` takes them.
        weights: a folder of pretrained weights, looked in before the hub.
        images: how many to overfit, 4 a class.
        seconds: when to give up.
        progress: shows the passes over the images.

    Raises:
        ConfigError, DataError, WeightsError: the configuration can't be built on these data.
    """
    if images < 2 or seconds <= 0:
        raise ConfigError(
            f"{counted(images, 'image')} in {seconds:g} s: give at least 2, and time above 0"
        )
    manifest = Manifest.load(data)
    chosen = complete_config(config, len(manifest.rows("train")))
    check_precision(chosen, default_device())
    check_backbone(chosen, len(manifest.classes), weights)
    few = _few(open_data(str(data), chosen), images)
    start = time.monotonic()
    plain = _plain(chosen)
    overfit = partial(_overfit, data=few, weights=weights, progress=progress)
    verdict = overfit(plain, seconds=(1 - LOOKED_FOR_CURE) * seconds)
    if verdict.passed or verdict.out_of_time:
        return replace(verdict, seconds=time.monotonic() - start)
    left = seconds - (time.monotonic() - start)
    return replace(_with_cure(verdict, plain, left, overfit), seconds=time.monotonic() - start)


def _plain(config: TrialConfig) -> TrialConfig:
    """Return `config` without regularisation, schedule and late unfreezing."""
    changes = dict(REGULARISATION_OFF)
    if config.finetune.policy != "head_only":
        changes["finetune.policy"] = "full"
    return build_config(changes, config)


def _few(data: TrialData, images: int) -> TrialData:
    """Return `images` training rows, 4 a class as far as there are, which are also validated on."""
    labels = data.images.labels[data.train]
    order = np.random.default_rng(0).permutation(len(labels))
    ranks = np.zeros(len(labels), np.int64)  # of an image among those of its class
    for label in np.unique(labels):
        mine = order[labels[order] == label]
        ranks[mine] = np.arange(len(mine))
    rounds = np.lexsort((labels, ranks // IMAGES_PER_CLASS))
    chosen: Rows = np.sort(data.train[rounds[:images]])
    return TrialData(data.images, data.classes, data.manifest_hash, chosen, {"val": chosen})


@dataclass
class _Try:
    """One net being driven to know a few images by heart."""

    live: LiveTrial
    losses: list[float] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    """Of the last look in eval mode."""

    @property
    def is_over(self) -> bool:
        """Say whether it has passed, or needn't go on."""
        hopeless = len(self.losses) >= ENOUGH_PASSES and self.losses[-1] > 0.9 * self.chance
        done = self.scores.get(metrics.VAL_TOP1, 0) >= ENOUGH_TOP1
        return done or hopeless or len(self.losses) >= MOST_PASSES

    @property
    def chance(self) -> float:
        return self.live.chance_loss

    def once_more(self) -> None:
        """Train on every image once; look in eval mode where that may show something."""
        number = len(self.losses) + 1
        trained = train_one_epoch(self.live, number, SoloRanks(), 1, lambda images: None)
        self.losses.append(trained.loss)
        if trained.loss < LOW_LOSS * self.chance or number % CHECK_EVERY == 0:
            self.scores = evaluate(self.live, SoloRanks(), 1)


def _overfit(
    config: TrialConfig,
    data: TrialData,
    seconds: float,
    weights: str | os.PathLike[str] | None,
    progress: Progress,
) -> OverfitResult:
    tried = _Try(build_live("sanity", config, data, default_device(), weights=weights))
    trouble = ""
    what = f"overfitting {len(data.train)} images"
    with torch.random.fork_rng(), progress(what, MOST_PASSES, "passes") as advance:
        try:
            deadline = time.monotonic() + seconds
            while not (tried.is_over or (tried.losses and time.monotonic() > deadline)):
                tried.once_more()
                advance(1)
        except TrialFailed as error:
            trouble = str(error)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            trouble = infeasible_message(config, default_device())
    return _judged(config, tried.live, tuple(tried.losses), tried.scores, trouble)


def _judged(
    config: TrialConfig,
    live: LiveTrial,
    losses: tuple[float, ...],
    scores: dict[str, float],
    trouble: str,
) -> OverfitResult:
    top1 = scores.get(metrics.VAL_TOP1, 0.0)
    passed = not trouble and top1 >= ENOUGH_TOP1
    slow = not (trouble or passed) and _is_unproven(losses, live.chance_loss)
    return OverfitResult(
        backbone=config.backbone,
        passed=passed,
        reason=trouble or _reason(config, live.chance_loss, losses, scores, passed, slow),
        out_of_time=slow,
        images=len(live.data.train),
        passes=len(losses),
        seconds=0.0,
        losses=losses,
        chance=live.chance_loss,
        top1=top1,
    )


def _is_unproven(losses: tuple[float, ...], chance: float) -> bool:
    """Say whether the time was over before the losses said anything against the net."""
    if len(losses) < ENOUGH_PASSES:
        return losses[-1] < 1.5 * chance
    return len(losses) < MOST_PASSES and losses[-1] < 0.9 * chance


def _reason(
    config: TrialConfig,
    chance: float,
    losses: tuple[float, ...],
    scores: dict[str, float],
    passed: bool,
    slow: bool,
) -> str:
    last, lr = losses[-1], config.optimizer.lr
    passes = counted(len(losses), "pass")
    outcome = f"the training loss is {last:.3g} after {passes} (chance {chance:.3g})"
    if passed:
        return f"{outcome}, top-1 in eval mode {scores[metrics.VAL_TOP1]:.2f}"
    if slow:
        return (
            f"{outcome} when time is up, which proves nothing; give more, or a smaller image_size"
        )
    if last < LOW_LOSS * chance:
        return (
            f"{outcome}, but top-1 in eval mode is {scores.get(metrics.VAL_TOP1, 0):.2f}: batch "
            "statistics don't fit; raise device_batch_size or use another backbone"
        )
    if max(losses) > 2 * max(chance, losses[0]) or last > 1.2 * chance:
        return f"{outcome}: optimizer.lr={lr:g} is too high"
    if scores and scores[metrics.VAL_LOGIT_STD] < 1e-6:
        return f"{outcome}: dead activations, the logits don't depend on the image"
    if last > 0.9 * chance:
        return f"{outcome}: nothing is learned with optimizer.lr={lr:g}"
    return f"{outcome}: learning with optimizer.lr={lr:g} is slow or unsteady"


def _with_cure(
    verdict: OverfitResult,
    config: TrialConfig,
    seconds: float,
    overfit: Callable[..., OverfitResult],
) -> OverfitResult:
    """Add to a failure whether another lr passes, and where none does whether a wider net."""
    larger = wider(config.backbone, config.scratch)
    share = seconds / (2 if larger is None else 3)
    for factor in _factors(config.optimizer.lr):
        other = min(10.0, config.optimizer.lr * factor)
        changed = build_config({"optimizer.lr": other}, config)
        if overfit(changed, seconds=share).passed:
            cure = f"; optimizer.lr={changed.optimizer.lr:g} passes"
            return replace(verdict, reason=verdict.reason + cure)
    tried_too = " and ".join(f"{config.optimizer.lr * f:g}" for f in _factors(config.optimizer.lr))
    reason = f"{verdict.reason}; nor does it pass with {tried_too}"
    if larger and overfit(config.model_copy(update={"scratch": larger}), seconds=share).passed:
        reason += (
            f"; the net is too small for the task: scratch.filters={larger.filters} passes where "
            f"{config.scratch.filters} doesn't"
        )
    return replace(verdict, reason=reason)


def _factors(lr: float) -> tuple[float, float]:
    """Return by what else the lr is tried, the likelier cure first."""
    if lr >= HIGH_LR:
        return 0.1, 0.01
    return (10, 100) if lr <= LOW_LR else (0.1, 10)
