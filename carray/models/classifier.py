"""`Classifier`: a backbone and a head, built, loaded and checked."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from carray.config import InputSpec, TrialConfig
from carray.errors import ConfigError, WeightsError
from carray.files import written_aside
from carray.models.backbones import (
    build_backbone,
    feature_width,
    map_width,
    shapes_alone,
    size_error,
)
from carray.models.fitted_heads import check_trained_by_steps
from carray.models.heads import build_head
from carray.models.lora import adapted_layers
from carray.models.registry import check_name, present_name
from carray.models.weights import (
    PathLike,
    backbone_weights,
    obtain_weights,
    read_weights,
    weights_hash,
    weights_name,
)

_logger = logging.getLogger(__name__)
CONVS_OF_A_CONV_NET = 3  # a vision transformer has one or two


class Classifier(nn.Module):
    """Backbone, then head: normalised images (B, 3, side, side) to logits (B, C)."""

    def __init__(self, config: TrialConfig, num_classes: int) -> None:
        super().__init__()
        self.backbone = build_backbone(config)
        self.reads_map = config.head.kind == "ml_decoder"
        seed = config.head.seed
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            self.head = build_head(
                config.head,
                feature_width(self.backbone),
                map_width(self.backbone),
                num_classes,
                config.dropout,
            )
        self.backbone_frozen = False  # then no graph is kept of the backbone: x4.5 on a CPU

    @property
    def is_conv_net(self) -> bool:
        """Say whether most of the work is convolutions, which `channels_last` makes faster."""
        convs = sum(isinstance(module, nn.Conv2d) for module in self.backbone.modules())
        return convs >= CONVS_OF_A_CONV_NET

    @property
    def may_skip_parameters(self) -> bool:
        """Say whether a step may leave parameters without a gradient, which DDP must be told."""
        return self.reads_map  # layers of the backbone after its feature map

    def features(self, images: Tensor) -> Tensor:
        """Return pooled features (B, D), or (B, P, D) of every position for ML-Decoder."""
        if not self.reads_map:
            pooled: Tensor = self.backbone(images)
            return pooled
        return self.positions(self.backbone.forward_features(images))  # type: ignore[operator]

    def positions(self, maps: Tensor) -> Tensor:
        """Return a feature map of any layout as (B, P, D)."""
        if maps.ndim == 3:
            return maps
        if maps.shape[-1] == map_width(self.backbone) and maps.shape[1] != maps.shape[-1]:
            return maps.flatten(1, 2)  # (B, H, W, D), as Swin gives it
        return maps.flatten(2).transpose(1, 2)  # (B, D, H, W)

    def forward(self, images: Tensor, are_features: bool = False) -> Tensor:
        """Return logits (B, C) of images, or of what `features` returned for them."""
        if are_features:
            known: Tensor = self.head(images)
            return known
        with torch.no_grad() if self.backbone_frozen else nullcontext():
            features = self.features(images)
        logits: Tensor = self.head(features)
        return logits


@dataclass(frozen=True)
class BuiltClassifier:
    """A classifier and what its weights started from."""

    classifier: Classifier
    initialisation: str
    """`NAME:HASH` of the weights' file, or `random:SEED`."""

    @property
    def parameters(self) -> int:
        """Number of the classifier's parameters."""
        return sum(parameter.numel() for parameter in self.classifier.parameters())


def build_classifier(
    config: TrialConfig, num_classes: int, weights: PathLike | None = None
) -> BuiltClassifier:
    """Build the classifier that `config` asks for, on the CPU, seeded by `config.seed`.

    Pretrained weights are looked for in the folder `weights` first, else in `$CARRAY_WEIGHTS`.
    The head of a file that carray saved is taken too where every shape agrees.

    Raises:
        ConfigError: the backbone is unknown or does not take the image size.
        WeightsError: the weights can't be had or don't fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        classifier = Classifier(config, num_classes)
    if not config.pretrained:
        return BuiltClassifier(classifier, f"random:{config.seed}")
    file = obtain_weights(config.backbone, config.pretrained, weights)
    state = read_weights(file)
    fitting = backbone_weights(classifier.backbone, config.backbone, state, file)
    classifier.backbone.load_state_dict(fitting, strict=False)
    _load_head(classifier.head, state)
    return BuiltClassifier(
        classifier, f"{weights_name(config.backbone, file)}:{weights_hash(file)}"
    )


def _load_head(head: nn.Module, state: Mapping[str, Tensor]) -> None:
    found = {k.removeprefix("head."): v for k, v in state.items() if k.startswith("head.")}
    expected = head.state_dict()
    if found.keys() == expected.keys() and all(
        found[k].shape == expected[k].shape for k in expected
    ):
        head.load_state_dict(found)


def save_classifier(weights: Mapping[str, Tensor], file: Path, spec: InputSpec) -> None:
    """Write a classifier's state as safetensors; the mean and std that it was fed go with it."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    metadata = {"mean": json.dumps(spec.mean), "std": json.dumps(spec.std)}
    with written_aside(file) as aside:
        save_file(tensors, aside, metadata)


def load_classifier(config: TrialConfig, num_classes: int, file: Path) -> Classifier:
    """Build the classifier of `config` with the weights that a trial left, on the CPU, eval mode.

    Raises:
        WeightsError: the file can't be read or isn't this classifier's.
    """
    if not file.is_file():
        raise WeightsError(f"there are no weights at {file}; the disk budget may have taken them")
    classifier = Classifier(config.model_copy(update={"drop_path": 0.0}), num_classes)
    state = read_weights(file)
    try:
        classifier.load_state_dict(state)
    except RuntimeError as error:
        problem = str(error).splitlines()[1:2] or [str(error)]
        raise WeightsError(
            f"the weights {file} are no {config.backbone!r} with {num_classes} classes: "
            f"{problem[0].strip()}"
        ) from None
    return classifier.eval()


def check_backbone(
    config: TrialConfig, num_classes: int = 2, weights: PathLike | None = None
) -> None:
    """Find out before a trial starts whether it can be built; no memory is taken but the file's.

    Name, tag, image size, one pass on the meta device, then the weights: that they can be had
    (the hub's are downloaded now) and fit. They are looked for as `build_classifier` does.

    Raises:
        ConfigError: the backbone is unknown or does not take the image size.
        WeightsError: the weights can't be had or don't fit; both sides are named.
    """
    check_name(config.backbone)
    if (present := present_name(config.backbone)) != config.backbone:
        _logger.info("backbone %r is what timm calls %r now", config.backbone, present)
    check_trained_by_steps(config.head)
    _check_batch(config)
    with shapes_alone():
        classifier = Classifier(config, num_classes)
        if config.finetune.policy == "lora":
            adapted_layers(classifier.backbone, config.finetune, config.backbone)
        images = torch.empty(2, 3, config.image_size, config.image_size)
        try:
            classifier(images)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise size_error(config, error) from None
    if config.device_batch_size == 1 and config.finetune.policy != "head_only":
        _check_single(classifier, images[:1])
    if config.pretrained:
        file = obtain_weights(config.backbone, config.pretrained, weights)
        backbone_weights(classifier.backbone, config.backbone, read_weights(file), file)


def _check_single(classifier: Classifier, image: Tensor) -> None:
    """Refuse steps of one image where a batch norm would see one value per channel."""
    try:
        classifier(image)
    except ValueError as error:
        raise ConfigError(
            f"device_batch_size=1 must be at least 2 at image_size={image.shape[-1]} ({error}); "
            "raise it, or image_size"
        ) from None


def _check_batch(config: TrialConfig) -> None:
    normalises = config.head.kind == "bn_linear" or (
        config.head.kind == "mlp" and config.head.batch_norm
    )
    if normalises and config.device_batch_size < 2:
        raise ConfigError(
            f"device_batch_size={config.device_batch_size} must be at least 2 with a head that "
            f"has batch norm (head.kind={config.head.kind!r})"
        )
