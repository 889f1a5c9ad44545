"""One epoch of training. Knows neither Tune nor MLflow nor files."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carray.data.pixels.augment_ranges import sees_whole_image
from carray.data.pixels.loader import Batch, Loader, TrainPlan, to_device, train_rows
from carray.data.pixels.mixup import mix_images, mix_targets
from carray.errors import TrialFailed
from carray.models.freezing import set_train_mode, set_trainable
from carray.training.compute.out_of_memory import PeakMemory, agree_on_memory
from carray.training.evaluation import stored_features
from carray.training.features.frozen import FeatureBatch, FeaturePlan, features_to_device
from carray.training.losses import drawn_counts, teacher_loss
from carray.training.optimizer import start_momenta
from carray.training.ranks import Ranks
from carray.training.schedule import lr_factor, set_lr
from carray.training.trial_state import LiveTrial, compile_step
from carray.typing import AnyFloats

OnBatch = Callable[[int], None]
CHECK_EVERY_STEPS = 20  # a look at the loss waits for the device, and for the other ranks


@dataclass(frozen=True)
class EpochTrainStats:
    """What one epoch of training was, over all ranks."""

    loss: float
    top1: float
    """Of the images as they were trained on; of mixed ones, for the class that weighs most."""
    images: int
    steps: int
    """Of the optimizer."""
    seconds: float
    wait_seconds: float
    """This rank's."""
    lr: float
    peak_memory_gib: float


def train_one_epoch(
    live: LiveTrial, epoch: int, ranks: Ranks, num_loaders: int, on_batch: OnBatch
) -> EpochTrainStats:
    """Train for the 1-based `epoch`: the same steps on all ranks, seeded by (seed, epoch, rank).

    Raises:
        TrialFailed: the loss is not finite; raised on all ranks.
        AgreedInfeasible: a step is too much for the memory of some rank.
    """
    start = time.perf_counter()
    memory = PeakMemory(live.numerics.device)
    plan = _train_plan(live, epoch, ranks)
    model = _prepared(live, epoch, plan, ranks)
    start_momenta(live.optimizer)
    on_features = _on_features(live, plan, epoch, num_loaders)
    if plan.augment.transform and live.numerics.device.type == "cpu":
        num_loaders = 0  # its random numbers are seeded, and dropout's drawn, in one generator
    loader: Loader[Batch | FeatureBatch] = Loader(on_features or plan, num_loaders)
    # three numbers in one; dropout and drop path draw from it
    torch.manual_seed((live.config.seed * 1_000_003 + epoch) * 1_009 + ranks.rank)
    steps = _Steps(live, epoch, len(loader))
    watch = _LossWatch(live.numerics.device, ranks, epoch)
    for index, batch in enumerate(loader):
        set_lr(live.optimizer, steps.lr_factor(index))
        loss, right = _forward_backward(live, model, batch, steps, index)
        if steps.ends_window(index):
            _optimizer_step(live)
        watch.add(loss, right, len(batch), float(live.optimizer.param_groups[0]["lr"]))
        memory.sample()
        on_batch(len(batch) * ranks.world_size)
    mean_loss, top1, images = watch.finish()
    return EpochTrainStats(
        loss=mean_loss,
        top1=top1,
        images=images,
        steps=steps.per_epoch,
        seconds=time.perf_counter() - start,
        wait_seconds=loader.wait_seconds,
        lr=float(live.optimizer.param_groups[0]["lr"]),
        peak_memory_gib=memory.largest_gib(ranks),
    )


def _train_plan(live: LiveTrial, epoch: int, ranks: Ranks) -> TrainPlan:
    config = live.config
    rows, batch_size = train_rows(
        live.data.train,
        config.seed,
        epoch,
        ranks.rank,
        ranks.world_size,
        config.device_batch_size,
        _odds(live),
    )
    return TrainPlan(
        images=live.data.images,
        rows=rows,
        batch_size=batch_size // live.compute.parts,
        image_size=config.image_size,
        augment=config.augment,
        seeds=(config.seed, epoch, ranks.rank),
        mixes=epoch <= config.cycle_end(epoch) - config.augment.mix_off_epochs,
        on_device=live.numerics.device.type != "cpu" and not config.augment.transform,
    )


def _odds(live: LiveTrial) -> AnyFloats | None:
    """Return how often each training image is drawn, over the others; None: once an epoch."""
    if live.config.class_sampling == "natural":
        return None
    labels = live.data.images.labels[live.data.train]
    counts = torch.bincount(torch.from_numpy(labels))
    odds = drawn_counts(counts, live.config.class_sampling) / counts.clamp(min=1)
    return odds.numpy()[labels]


def _on_features(
    live: LiveTrial, plan: TrainPlan, epoch: int, num_loaders: int
) -> FeaturePlan | None:
    """Return the plan over a frozen backbone's stored features; None where it has to run."""
    views, mixes = live.config.finetune.feature_views, plan.mixes and live.mixes
    if mixes or not views or live.teacher is not None or plan.augment.transform:
        return None
    # the first view is the whole image, as it is evaluated; then the augmented ones, in turn
    view = 0 if sees_whole_image(live.config.augment) else (epoch - 1) % views
    stored = stored_features(live, live.data.train, view, num_loaders)
    if stored is None:
        return None
    labels = live.data.images.labels
    return FeaturePlan(stored, labels, plan.rows, plan.batch_size, drops_last=True)


def _prepared(live: LiveTrial, epoch: int, plan: TrainPlan, ranks: Ranks) -> nn.Module:
    """Freeze and free layers, and return the model that shares its gradients over ranks."""
    changed = set_trainable(live.classifier, live.config.finetune, epoch)
    if live.wrapped is None or changed:
        live.wrapped = None
        device = live.numerics.device
        agree_on_memory(live.classifier, live.config, device, plan.batch_size, ranks)
    set_train_mode(live.classifier)
    if live.wrapped is None:
        live.wrapped = ranks.wrap(_computing(live, plan, ranks))
    return live.wrapped


def _computing(live: LiveTrial, plan: TrainPlan, ranks: Ranks) -> nn.Module:
    """Return the classifier as its steps run: compiled, captured or as it is.

    No graphs where gradients are kept from step to step, and for a head alone, which may have its
    features from the store.
    """
    keeps_gradients = live.config.accumulation * live.compute.parts > 1 or ranks.world_size > 1
    graphs = live.compute.graphs and not keeps_gradients and not live.classifier.backbone_frozen
    compute = live.compute.model_copy(update={"graphs": graphs})
    return compile_step(live.classifier, compute, plan.batch_size, plan.image_size)


@dataclass(frozen=True)
class _Steps:
    """Which batches make one optimizer step; the epoch's last window may be shorter."""

    live: LiveTrial
    epoch: int
    batches: int

    @property
    def window(self) -> int:
        return self.live.config.accumulation * self.live.compute.parts

    @property
    def per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return -(-self.batches // self.window)

    def window_size(self, index: int) -> int:
        """Return how many batches share the optimizer step of batch `index`."""
        first = index // self.window * self.window
        return min(self.window, self.batches - first)

    def ends_window(self, index: int) -> bool:
        return (index + 1) % self.window == 0 or index + 1 == self.batches

    def lr_factor(self, index: int) -> float:
        config, plateau = self.live.config, self.live.plateau
        step = (self.epoch - 1) * self.per_epoch + index // self.window
        return plateau.factor * lr_factor(config.schedule, step, self.per_epoch, config.epochs)


def _forward_backward(
    live: LiveTrial, model: nn.Module, batch: Batch | FeatureBatch, steps: _Steps, index: int
) -> tuple[Tensor, Tensor]:
    """Add one batch's gradient; return its loss and its right answers, scalars on the device.

    The loss is that of the labels, also where a teacher has its share of the gradient: by it trials
    are told that learn nothing, whoever teaches them.
    """
    inputs, targets = _inputs(live, batch)
    no_sync = None if steps.ends_window(index) else getattr(model, "no_sync", None)
    with no_sync() if no_sync else nullcontext():
        with live.numerics.autocast():
            logits = model(inputs, isinstance(batch, FeatureBatch))
        loss = live.loss(logits, targets)
        learned = _taught(live, loss, logits, inputs)
        share = live.scaler.scale(learned / steps.window_size(index))
        share.backward()  # type: ignore[no-untyped-call]
    right = (logits.detach().argmax(dim=1) == targets.argmax(dim=1)).sum()
    return loss.detach(), right


def _taught(live: LiveTrial, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
    """Return what the gradient is of: the labels' loss, with the teacher's share where one teaches.

    The teacher sees the very images that the student sees, augmented and mixed (Beyer et al.,
    "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022).
    """
    if live.teacher is None:
        return loss
    distill = live.config.distill
    answers = live.teacher(live.numerics.pixels(images))
    share = distill.weight * teacher_loss(logits, answers, distill.temperature)
    return share + (1 - distill.weight) * loss


def _inputs(live: LiveTrial, batch: Batch | FeatureBatch) -> tuple[Tensor, Tensor]:
    """Return normalised images (B, 3, side, side), or features, and soft targets (B, C)."""
    if isinstance(batch, FeatureBatch):
        features, labels = features_to_device(batch, live.numerics.device)
        return features, F.one_hot(labels, len(live.data.classes)).float()
    images, labels = to_device(batch, live.numerics.device)
    images = live.numerics.normalise(images)
    num_classes = len(live.data.classes)
    if batch.mix is None:
        return images, F.one_hot(labels, num_classes).float()
    return mix_images(images, batch.mix), mix_targets(labels, num_classes, batch.mix)


def _optimizer_step(live: LiveTrial) -> None:
    if clip := live.config.optimizer.clip_grad_norm:
        live.scaler.unscale_(live.optimizer)
        nn.utils.clip_grad_norm_(live.classifier.parameters(), clip)
    live.scaler.step(live.optimizer)
    live.scaler.update()
    live.optimizer.zero_grad(set_to_none=True)
    if live.averaged:
        live.averaged.update(live.classifier)


class _LossWatch:
    """Adds losses on the device and looks at them now and then, all ranks at the same step."""

    def __init__(self, device: torch.device, ranks: Ranks, epoch: int) -> None:
        self._device, self._ranks, self._epoch = device, ranks, epoch
        # loss x images, images, right
        self._sum = torch.zeros(3, dtype=torch.float64, device=device)
        self._recent: list[Tensor] = []
        self._lrs: list[float] = []
        self._checked = 0

    def add(self, loss: Tensor, right: Tensor, images: int, lr: float) -> None:
        self._sum[0] += loss.double() * images
        self._sum[1] += images
        self._sum[2] += right
        self._recent.append(loss)
        self._lrs.append(lr)
        if len(self._recent) == CHECK_EVERY_STEPS:
            self._check()

    def _check(self) -> None:
        losses = torch.stack(self._recent).double()
        total = self._ranks.all_sum(losses)
        bad = (~torch.isfinite(total)).nonzero().flatten().tolist()
        if bad:
            first = bad[0]
            raise TrialFailed(
                f"loss is {float(total[first])} at step {self._checked + first + 1} of epoch "
                f"{self._epoch} with lr {self._lrs[first]:.3g}; lower optimizer.lr, or set "
                "optimizer.clip_grad_norm"
            )
        self._checked += len(self._recent)
        self._recent, self._lrs = [], []

    def finish(self) -> tuple[float, float, int]:
        """Return mean loss and top-1 over all ranks' images, and how many these are."""
        if self._recent:
            self._check()
        total, images, right = self._ranks.all_sum(self._sum).tolist()
        return total / images, right / images, int(images)
