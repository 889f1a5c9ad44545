"""`LiveTrial`: a trial's classifier, optimizer and data while a lane works on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from carray.config import Compute, InputSpec, TrialConfig
from carray.errors import ConfigError
from carray.metrics import EpochRow
from carray.models.backbones import input_spec
from carray.models.classifier import BuiltClassifier, Classifier, build_classifier
from carray.models.depthwise import replace_depthwise_convolutions
from carray.models.lora import add_lora
from carray.models.weights import PathLike
from carray.training.compute.cuda_graphs import GraphedClassifier
from carray.training.dataset import TrialData
from carray.training.ema import AveragedWeights
from carray.training.losses import Loss, build_loss, chance_loss, drawn_counts
from carray.training.optimizer import build_optimizer
from carray.training.schedule import Plateau

COPIED_IN_PLACE = (nn.Hardtanh, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Mish)  # ReLU isn't
CACHED_VALUES = 2**16  # pixels that are normalised at once: 768 KiB of float32


@dataclass(frozen=True)
class Numerics:
    """In which numbers a trial computes, and how images reach the classifier."""

    device: torch.device
    autocast_dtype: torch.dtype | None
    memory_format: torch.memory_format
    scale: Tensor
    """(1, 3, 1, 1): 1 / (255 std)."""
    shift: Tensor
    """(1, 3, 1, 1): -mean / std."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context that forward passes run in."""
        kind = self.autocast_dtype
        return torch.autocast(self.device.type, kind or torch.bfloat16, enabled=kind is not None)

    def normalise(self, images: Tensor) -> Tensor:
        """Return normalised float32 images of uint8 images, or of float ones in [0, 255]."""
        on_cpu = images.device.type == "cpu"
        if on_cpu and images.is_contiguous(memory_format=torch.channels_last):
            images = self._normalise_in_cache(images)
        else:
            images = torch.addcmul(self.shift, images.float(), self.scale)
        return images.contiguous(memory_format=self.memory_format)

    def pixels(self, images: Tensor) -> Tensor:
        """Return float32 images in [0, 255] of normalised ones."""
        return (images - self.shift) / self.scale

    def _normalise_in_cache(self, images: Tensor) -> Tensor:
        """Convert and scale a few rows at a time, so that the second pass finds them in the cache;
        rows of pixels side by side are long enough for vector instructions, three channels not.
        """
        width = images.shape[3]
        out = torch.empty_like(images, dtype=torch.float32)
        rows = max(1, CACHED_VALUES // width)
        sources, targets = (
            torch.split(batch.permute(0, 2, 3, 1).view(-1, 3 * width), rows)
            for batch in (images, out)
        )
        scale, shift = self.scale.flatten().repeat(width), self.shift.flatten().repeat(width)
        for source, target in zip(sources, targets, strict=True):
            torch.addcmul(shift, target.copy_(source), scale, out=target)
        return out


AUTOCAST = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
ComputePolicy = Callable[[Classifier], Compute]
Answers = Callable[[Tensor], Tensor]
"""Log-probabilities (B, C) of images (B, 3, side, side) in [0, 255]."""


def build_numerics(spec: InputSpec, compute: Compute, device: torch.device) -> Numerics:
    """Return the numbers of `compute` on `device`, for images as `spec` wants them."""
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    return Numerics(
        device=device,
        autocast_dtype=AUTOCAST[compute.precision],
        memory_format=torch.channels_last if compute.channels_last else torch.contiguous_format,
        scale=1 / (255 * std),
        shift=-mean / std,
    )


def check_precision(config: TrialConfig, device: torch.device) -> None:
    """Refuse a precision that the device doesn't have.

    Raises:
        ConfigError: fp16 without a GPU.
    """
    if config.precision == "fp16" and device.type != "cuda":
        raise ConfigError("precision='fp16' needs a GPU; use precision=bf16, fp32 or auto")


def default_compute(config: TrialConfig, classifier: Classifier, device: torch.device) -> Compute:
    """Return what needs no measurement: `auto` is bf16 on a GPU that has it, float32 elsewhere;
    nets of convolutions have their channels last.

    Raises:
        ConfigError: the device doesn't have the precision.
    """
    check_precision(config, device)
    precision = config.precision
    if precision == "auto":
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bf16" if has_bf16 else "fp32"
    compiled = config.compile == "on"
    return Compute(precision=precision, channels_last=classifier.is_conv_net, compiled=compiled)


def compile_step(classifier: Classifier, compute: Compute, batch_size: int, side: int) -> nn.Module:
    """Return `classifier` as its training steps run, for full batches of images of `side` pixels.

    A graph writes its gradients where the one before had them: none may be kept for the next step.
    """
    if compute.compiled:
        mode = "reduce-overhead" if compute.graphs else None
        return cast(nn.Module, torch.compile(classifier, dynamic=False, mode=mode))
    if compute.graphs:
        shape = batch_size, 3, side, side
        return GraphedClassifier(classifier, shape, AUTOCAST[compute.precision])
    return classifier


@dataclass
class LiveTrial:
    """Everything that the next epoch of one trial needs; the only mutable state of training."""

    trial: str
    config: TrialConfig
    data: TrialData
    spec: InputSpec
    numerics: Numerics
    compute: Compute
    classifier: Classifier
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    loss: Loss
    averaged: AveragedWeights | None
    initialisation: str
    parameters: int
    chance_loss: float
    """The training loss of a classifier that always says the classes' shares."""
    teacher: Answers | None = None
    """What a teacher says of a batch; None where labels alone teach."""
    plateau: Plateau = field(default_factory=Plateau)
    rows: list[EpochRow] = field(default_factory=list)
    stamp: str = ""
    """The checkpoint that this state equals."""
    wrapped: nn.Module | None = None
    """The classifier as the ranks share its gradients; None until the next epoch wraps it."""

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.rows)

    @property
    def mixes(self) -> bool:
        """Say whether MixUp or CutMix is on."""
        augment = self.config.augment
        return augment.mix_prob > 0 and (augment.mixup > 0 or augment.cutmix > 0)

    @property
    def judged(self) -> Classifier:
        """The classifier that is evaluated and kept: the averaged one where there is one."""
        return self.averaged.classifier if self.averaged else self.classifier


def build_live(
    trial: str,
    config: TrialConfig,
    data: TrialData,
    device: torch.device,
    choose: ComputePolicy | None = None,
    weights: PathLike | None = None,
) -> LiveTrial:
    """Build a trial as it is before its first epoch; `choose` decides how it computes.

    Pretrained weights are looked for in the folder `weights` first, else in `$CARRAY_WEIGHTS`.

    Raises:
        ConfigError: the backbone is unknown, or can't be built so.
        WeightsError: the weights can't be had or don't fit.
    """
    num_classes = len(data.classes)
    built: BuiltClassifier = build_classifier(config, num_classes, weights)
    parameters = built.parameters  # as saved
    disable_inplace_activations(built.classifier)
    if device.type == "cuda":
        replace_depthwise_convolutions(built.classifier)
    if config.finetune.policy == "lora":
        add_lora(built.classifier.backbone, config.finetune, config.backbone, config.seed)
    spec = input_spec(config, weights)
    compute = (choose or partial(default_compute, config, device=device))(built.classifier)
    numerics = build_numerics(spec, compute, device)
    # torch's stubs know no memory format in Module.to
    classifier = built.classifier.to(device, memory_format=numerics.memory_format)  # type: ignore[call-overload]
    labels = torch.from_numpy(data.images.labels[data.train])
    counts = drawn_counts(torch.bincount(labels, minlength=num_classes), config.class_sampling)
    return LiveTrial(
        trial=trial,
        config=config,
        data=data,
        spec=spec,
        numerics=numerics,
        compute=compute,
        classifier=classifier,
        optimizer=build_optimizer(classifier, config.optimizer),
        scaler=torch.amp.GradScaler(device.type, enabled=numerics.autocast_dtype is torch.float16),
        loss=build_loss(config.loss, counts.to(device)),
        averaged=AveragedWeights(classifier, config.ema_decay) if config.ema_decay else None,
        initialisation=built.initialisation,
        parameters=parameters,
        chance_loss=chance_loss(config.loss, counts),
    )


def disable_inplace_activations(classifier: nn.Module) -> None:
    """Let activations leave their input alone where its gradient needs the input.

    In place, torch copies the input first, to have it afterwards: the same memory and values,
    one pass more, 5 % of a MobileNet's training step.
    """
    for module in classifier.modules():
        if isinstance(module, COPIED_IN_PLACE):
            module.inplace = False
