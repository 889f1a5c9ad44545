"""`TrialConfig`: everything that decides what one trial does; frozen, checked when made.

Dotted names (`optimizer.lr`) are attribute paths of `TrialConfig`; search spaces, `--set` and
records use them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, Self, get_args, get_origin

from pydantic import AfterValidator, Field, ValidationError, model_validator

from carray.compute import Compute as Compute
from carray.compute import Hardware as Hardware
from carray.compute import InputSpec as InputSpec
from carray.compute import Part as Part
from carray.errors import ConfigError, describe, did_you_mean, did_you_mean_path
from carray.typing import LOOKAHEADS, OPTIMIZERS, BestMetric, Compile, Precision

Fit = Literal["squash", "crop", "pad"]
Policy = Literal["full", "head_only", "unfreeze_at", "gradual", "lora"]
HeadKind = Literal[
    "linear", "bn_linear", "mlp", "ml_decoder", "linear_probe", "random_forest", "knn"
]
ClassSampling = Literal["natural", "sqrt", "balanced"]
CLASSICAL_SETTINGS = {  # names of `HeadConfig` that each of the fitted heads reads
    "linear_probe": ("C", "max_iter"),
    "random_forest": ("n_estimators", "max_depth", "min_samples_leaf", "max_features"),
    "knn": ("n_neighbors", "sharpness"),
}
CLASSICAL_HEADS = tuple(CLASSICAL_SETTINGS)
EXTRA = "optimizer.args."
"""Begins the names of an optimizer's own arguments, as in `optimizer.args.eps`."""
CROSS_CHECKED = (  # what `TrialConfig._check_epochs` compares
    "epochs",
    "schedule.warmup_epochs",
    "schedule.decay_epochs",
    "schedule.restart_after",
    "augment.mix_off_epochs",
    "finetune.policy",
    "finetune.epoch",
)


class HeadConfig(Part):
    """The layers on top of the backbone's features."""

    kind: HeadKind = "linear"
    """`ml_decoder` is Ridnik et al., "ML-Decoder", WACV 2023, as timm holds it; those of
    `CLASSICAL_HEADS` are fitted to a trial's features, not trained by steps."""
    hidden: int = Field(512, ge=8, le=16384)
    """Units of the MLP's hidden layer."""
    batch_norm: bool = True
    """Batch norm in the MLP's hidden layer."""
    groups: int = Field(0, ge=0)
    """ML-Decoder's group queries; 0 takes one for each class, at most 100."""
    decoder_width: int = Field(768, ge=8, multiple_of=8)
    """ML-Decoder's embedding width."""
    decoder_heads: Literal[1, 2, 4, 8] = 8
    """ML-Decoder's heads of attention; its paper has 8."""
    n_estimators: int = Field(300, ge=1, le=10000)
    """The forest's trees; this and what follows are scikit-learn's names."""
    max_depth: int = Field(0, ge=0)
    """Most steps from a tree's root to a leaf; 0: as many as it takes."""
    min_samples_leaf: int = Field(1, ge=1)
    """Training images that a leaf must have."""
    max_features: Literal["sqrt", "log2", "all"] = "sqrt"
    """Features that a split chooses among."""
    C: float | None = Field(None, gt=0)
    """The linear probe's inverse strength of regularisation; unset: chosen on `val`."""
    max_iter: int = Field(300, ge=1, le=100000)
    """The linear probe's steps."""
    n_neighbors: int | None = Field(None, ge=1)
    """Neighbours that vote; unset, as `sharpness`: chosen on `val`."""
    sharpness: float | None = Field(None, ge=0)
    """A neighbour's weight is exp(sharpness x cosine)."""
    seed: int | None = Field(None, ge=0, lt=2**31)
    """Of its first weights; None: the trial's own seed. Trials whose heads begin alike answer more
    alike, so that they gain less by an ensemble."""


class ScratchConfig(Part):
    """For carray's own backbones alone: `small_car_cnn` takes all of it; the cars CNNs take
    `dropout`, `depth`, `residual_blocks` and `attention`."""

    filters: int = Field(32, ge=4, le=512)
    """Of the first block; the next two have twice and four times as many."""
    kernel_size: Literal[3, 5, 7] = 3
    dense_units: int = Field(256, ge=8, le=8192)
    batch_norm: bool = True
    squeeze_excite: bool = False
    dropout: float = Field(0.5, ge=0, lt=1)
    """Before the dense layer; in the cars CNNs it falls from this to 0.6 times this."""
    depth: int = Field(0, ge=0, le=10)
    """Blocks; 0: the net's own, 3 or 5. Further ones keep the map's size."""
    residual_blocks: Literal["own", "none", "early", "late", "all"] = "own"
    """Which blocks are followed by a residual one: `early` the first half, `late` the second;
    the improved cars CNN's own are its second and third, the others' none."""
    attention: Literal["none", "squeeze_excite", "self_attention"] = "none"
    """Squeeze-and-excitation after each block, as `squeeze_excite` has it for `small_car_cnn`; or
    self-attention over the last map's positions."""


def _known_optimizer(name: str) -> str:
    if name not in (*OPTIMIZERS, *LOOKAHEADS):
        hint = did_you_mean(name, OPTIMIZERS) or f"; they are {', '.join(OPTIMIZERS)}"
        raise ValueError(f"it is none of timm's optimizers{hint}")
    return name


OptimizerName = Annotated[str, AfterValidator(_known_optimizer)]


class OptimizerConfig(Part):
    """The optimizer, built by timm's factory."""

    name: OptimizerName = Field("adamw", json_schema_extra={"enum": [*OPTIMIZERS, *LOOKAHEADS]})
    """One of `OPTIMIZERS`, as timm calls them, or with `lookahead_` before it (Zhang et al.)."""
    lr: float = Field(1e-3, gt=0, le=10)
    """Peak learning rate."""
    weight_decay: float = Field(0.01, ge=0, le=1)
    momentum: float = Field(0.9, ge=0, lt=1)
    """For SGD and its like; the first beta of AdamW, Adam and LAMB."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Each layer's lr is this factor times the one above it (1: all the same)."""
    head_lr_ratio: float = Field(1.0, gt=0, le=1000)
    """The head's lr over the backbone's."""
    clip_grad_norm: float = Field(0.0, ge=0)
    """Largest norm of the gradient; 0: not clipped."""
    args: dict[str, float | bool | str] = Field(default_factory=dict)
    """The optimizer's own arguments by timm's names, each written `optimizer.args.NAME`."""


class ScheduleConfig(Part):
    """How the learning rate moves; updated after every optimizer step, plateau after epochs."""

    name: Literal["cosine", "one_cycle", "wsd", "step", "plateau", "constant"] = "cosine"
    """`wsd` warms up, stays at the peak and decays at the end."""
    warmup_epochs: float = Field(0.0, ge=0)
    """Linear warm-up from lr/100, in epochs; at most the trial's epochs."""
    min_lr_ratio: float = Field(0.01, ge=0, le=1)
    """Final lr over peak lr for cosine, one-cycle and wsd; the floor of step and plateau."""
    decay_epochs: float = Field(0.0, ge=0)
    """How long the way down takes, in epochs; 0: a cosine's all epochs after the warm-up, wsd's
    the last fifth. A shorter cosine stays at its floor."""
    step_epochs: float = Field(0.0, ge=0)
    """Epochs between two steps of `step`; 0: a third of all."""
    step_factor: float = Field(0.1, gt=0, lt=1)
    """What each of them multiplies the lr by."""
    restart_after: int = Field(0, ge=0)
    """Epochs after which a schedule that has ended begins again from half the peak, as a cosine: a
    training that is continued for longer; 0: it doesn't. Plateau and constant just go on."""
    plateau_factor: float = Field(0.5, gt=0, lt=1)
    plateau_patience: int = Field(2, ge=0)


class LossConfig(Part):
    """The training loss; evaluation is always plain cross-entropy (log-loss)."""

    name: Literal["cross_entropy", "bce", "focal"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    focal_gamma: float = Field(2.0, ge=0, le=10)
    class_weights: Literal["none", "sqrt", "balanced", "effective"] = "none"
    """What an image of a rare class counts more: by the root of its class's images, by their
    number, or by their effective number."""
    effective_beta: float = Field(0.999, ge=0, lt=1)
    """Of the effective number; near 1 it is the number itself."""
    logit_adjustment: float = Field(0.0, ge=0, le=5)
    """How far training moves logits by the classes' log shares, so that rare ones are answered as
    often as others: 1 aims at balanced accuracy; 0: off."""


Share = Annotated[float | None, Field(ge=0, le=1)]


class AugmentConfig(Part):
    """Training augmentation; evaluation has none."""

    strength: float = Field(0.3, ge=0, le=1)
    """One dial for crop scale, colour jitter, RandAugment and erasing together."""
    crop_min_area: Share = None
    """Smallest crop, as a share of the image's area; unset, as those below: by `strength`."""
    crop_keeps_box: bool = False
    """Crops hold the image's box where the data have one, or lie in it where they are smaller."""
    jitter: Share = None
    """The dial for brightness, contrast, saturation and hue alone."""
    geometry: Share = None
    """The dial for rotation, shear and shifts alone."""
    tone: Share = None
    """The dial for posterising, solarising and gamma alone."""
    erasing: Share = None
    """The dial for erased boxes alone."""
    erase_boxes: int = Field(1, ge=1, le=16)
    """Boxes of an image that has some erased."""
    perspective: float = Field(0.0, ge=0, le=1)
    """The dial for a camera's tilt, which `strength` leaves alone; 0: off."""
    flip: bool = True
    blur: float = Field(0.0, ge=0, le=1)
    """Share of the images that are blurred, with a sigma of 0.1 to 2 pixels; 0: off."""
    blur_kind: Literal["gaussian", "motion", "median", "any"] = "gaussian"
    """How: alike in all directions, along one, by the median of 3 x 3 pixels, or one of these."""
    mixup: float = Field(0.0, ge=0, le=10)
    """MixUp's alpha; 0: off."""
    cutmix: float = Field(0.0, ge=0, le=10)
    """CutMix's alpha; 0: off. With both, each batch draws one of them."""
    mix_prob: float = Field(1.0, ge=0, le=1)
    """Share of the batches that are mixed."""
    transform: str = ""
    """One of the user's own, as `package.module:function`, after all else but MixUp and CutMix."""
    mix_off_epochs: int = Field(0, ge=0)
    """The last epochs, trained without MixUp and CutMix; of a continued training, before it too."""


class FinetuneConfig(Part):
    """Which layers train when."""

    policy: Policy = "full"
    """`unfreeze_at` frees the backbone at `epoch`; `gradual` frees one more block group every
    `epoch` epochs, from the top; frozen batch norms stay in eval mode. `lora` keeps the backbone
    and trains the head and a low-rank addition to each weight, which is added in when saved."""
    epoch: int = Field(1, ge=1)
    lora_rank: int = Field(8, ge=1, le=1024)
    """Of the addition: the width of its two matrices."""
    lora_alpha: float = Field(16.0, gt=0, le=1024)
    """The addition is scaled by this over the rank."""
    lora_layers: Literal["all", "attention", "others"] = "all"
    """Which linear layers and convolutions have one: all, those of attention, or the others."""
    feature_views: int = Field(4, ge=0, le=64)
    """While the whole backbone is frozen: views of a training image whose features are computed
    once, for all trials, and taken in turn; 0 runs the backbone every time. Without MixUp and
    CutMix only."""


class DistillConfig(Part):
    """A teacher whose answers a trial learns besides the labels."""

    teacher: str = ""
    """The folder of a model package of the same data; "": labels alone."""
    weight: float = Field(0.5, ge=0, le=1)
    """The teacher's share of the loss; the labels have the rest."""
    temperature: float = Field(2.0, gt=0, le=100)
    """Above 1 the classes that the teacher holds for unlikely say more."""


class TrialConfig(Part):
    """One configuration, tried once; a pure function of this and the manifest is a trial."""

    backbone: str = Field("resnet18", min_length=1)
    """Any timm model name, with or without its tag."""
    pretrained: bool | str = True
    """true, false, a `.safetensors` or `.pth` file, or `local-dir:FOLDER`."""
    head: HeadConfig = HeadConfig()
    dropout: float = Field(0.0, ge=0, lt=1)
    """Before the head's last layer."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth, where the backbone has it."""
    scratch: ScratchConfig = ScratchConfig()
    image_size: int = Field(224, ge=16, le=2048)
    """Side of the square that the backbone sees, in pixels."""
    fit: Fit = "squash"
    """How an image becomes a square: `squash` ignores its aspect ratio, `crop` keeps the middle,
    `pad` adds borders."""
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    distill: DistillConfig = DistillConfig()
    augment: AugmentConfig = AugmentConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    class_sampling: ClassSampling = "natural"
    """How often an epoch draws a class: once an image; by the root of its images; all alike. The
    last two draw with repeats."""
    device_batch_size: int = Field(32, ge=1, le=65536)
    """Images a rank takes in one step."""
    accumulation: int = Field(1, ge=1, le=1024)
    """Steps whose gradients are added before the optimizer moves."""
    grad_checkpointing: bool = False
    """Keep fewer activations and compute them again for the gradient: less memory, the same
    result, about a third more time."""
    epochs: int = Field(10, ge=1, le=10000)
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of the averaged weights that are evaluated and kept; 0: off."""
    precision: Precision = "auto"
    """`auto`: bf16 on a GPU that has it, else fp32; a long trial measures first."""
    compile: Compile = "auto"
    """`torch.compile` of the training step; `auto`: where a trial is long enough to win it back."""
    seed: int = Field(0, ge=0, lt=2**31)
    best_metric: BestMetric = "val/calibrated_log_loss"
    """Picks the epoch whose weights and logits are kept; in a search, the study's `metric`
    unless the space says otherwise."""
    early_stop_patience: int = Field(0, ge=0)
    """Epochs without a better `best_metric` after which the trial is complete; 0: off."""
    stop_collapsed: bool = True
    """End a trial that gives all images the same few classes and learns nothing."""
    fold: int | None = Field(None, ge=0)
    """The fold of train to validate on, in place of `val`."""

    def without_seed(self) -> Self:
        """Return the configuration that trials which are seeds of one another share."""
        return self.model_copy(update={"seed": 0})

    def continued(self, epochs: int) -> Self:
        """Return the configuration of this one's training, to its end and on to `epochs`.

        It says all that the longer training does: trained from the start it comes to the same.
        """
        schedule = self.schedule.model_copy(update={"restart_after": self.epochs})
        return self.model_copy(update={"epochs": epochs, "schedule": schedule})

    def cycle_end(self, epoch: int) -> int:
        """Return the last epoch of the schedule's cycle that the 1-based `epoch` lies in."""
        restart = self.schedule.restart_after
        return restart if epoch <= restart else self.epochs

    @model_validator(mode="after")
    def _check_epochs(self) -> Self:
        if self.schedule.restart_after >= self.epochs > 0:
            raise ValueError(
                f"schedule.restart_after={self.schedule.restart_after} must be before "
                f"epochs={self.epochs}"
            )
        for name, value in (
            ("schedule.warmup_epochs", self.schedule.warmup_epochs),
            ("schedule.decay_epochs", self.schedule.decay_epochs),
            ("augment.mix_off_epochs", self.augment.mix_off_epochs),
        ):
            if value > self.epochs:
                raise ValueError(f"{name}={value} must be at most epochs={self.epochs}")
        if self.finetune.policy == "unfreeze_at" and self.finetune.epoch >= self.epochs:
            raise ValueError(
                f"finetune.epoch={self.finetune.epoch} must be before epochs={self.epochs}, "
                "or nothing is ever unfrozen"
            )
        return self


def _part_of(annotation: Any) -> type[Part] | None:
    """Return the `Part` class in an annotation, if it is one."""
    classes = (each for each in (annotation, *get_args(annotation)) if isinstance(each, type))
    return next((each for each in classes if issubclass(each, Part)), None)


def check_parameter(path: object) -> None:
    """Refuse what names neither a leaf nor an optimizer's own argument; raises ConfigError."""
    own = str(path).partition(EXTRA)
    if path not in config_paths() and (own[0] or not own[2].isidentifier()):
        meant = did_you_mean_path(str(path), config_paths())
        raise ConfigError(f"unknown parameter {path!r}{meant}")


def default_of(path: str) -> Any:
    """Return the value of a leaf where nobody says; None for an optimizer's own argument."""
    return flatten(TrialConfig()).get(path)


@cache  # asked for each name of each configuration that is built
def config_paths(part: type[Part] = TrialConfig) -> tuple[str, ...]:
    """Return every dotted name that `TrialConfig` has, leaves only, without `optimizer.args`."""
    paths: list[str] = []
    for name, field in part.model_fields.items():
        if get_origin(field.annotation) is dict:
            continue
        inner = _part_of(field.annotation)
        paths += [f"{name}.{path}" for path in config_paths(inner)] if inner else [name]
    return tuple(paths)


def flatten(config: Part) -> dict[str, Any]:
    """Return {dotted name: value} of every leaf of `config`."""
    flat: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, dict):
            flat.update({f"{name}.{key}": leaf for key, leaf in value.items()})
        elif isinstance(value, Part):
            flat.update({f"{name}.{path}": leaf for path, leaf in flatten(value).items()})
        else:
            flat[name] = value
    return flat


def build_config(params: Mapping[str, Any], base: TrialConfig | None = None) -> TrialConfig:
    """Return `base` (or the defaults) with dotted `params` laid over it.

    Raises:
        ConfigError: a name is unknown, or a value breaks a rule.
    """
    tree: dict[str, Any] = (base or TrialConfig()).model_dump()
    for path, value in params.items():
        check_parameter(path)
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        node[leaf] = value
    try:
        return TrialConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(describe(error)) from None
