"""Settings that nothing reads, because of what another one says: `head.hidden` of a linear head."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from carray.config import CLASSICAL_SETTINGS, TrialConfig, flatten
from carray.models.names import CARS_NETS, SMALL_NET

ON = "on"  # any value but 0, "" and none
Values = Callable[[str], Sequence[Any]]
"""What the setting of a name may be."""

_READ_BY: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {  # names -> who reads them, as what
    ("head.hidden", "head.batch_norm"): {"head.kind": ("mlp",)},
    ("head.groups", "head.decoder_width", "head.decoder_heads"): {"head.kind": ("ml_decoder",)},
    **{
        tuple(f"head.{name}" for name in names): {"head.kind": (kind,)}
        for kind, names in CLASSICAL_SETTINGS.items()
    },
    (
        "scratch.filters",
        "scratch.kernel_size",
        "scratch.dense_units",
        "scratch.batch_norm",
        "scratch.squeeze_excite",
    ): {"backbone": (SMALL_NET,)},
    (
        "scratch.dropout",
        "scratch.depth",
        "scratch.residual_blocks",
        "scratch.attention",
    ): {"backbone": (SMALL_NET, *CARS_NETS)},
    ("schedule.step_epochs", "schedule.step_factor"): {"schedule.name": ("step",)},
    ("schedule.plateau_factor", "schedule.plateau_patience"): {"schedule.name": ("plateau",)},
    ("schedule.decay_epochs",): {"schedule.name": ("cosine", "wsd")},
    ("loss.focal_gamma",): {"loss.name": ("focal",)},
    ("loss.effective_beta",): {"loss.class_weights": ("effective",)},
    ("augment.blur_kind",): {"augment.blur": (ON,)},
    ("augment.mix_prob", "augment.mix_off_epochs"): {
        "augment.mixup": (ON,),
        "augment.cutmix": (ON,),
    },
    ("finetune.epoch",): {"finetune.policy": ("unfreeze_at", "gradual")},
    ("finetune.lora_rank", "finetune.lora_alpha", "finetune.lora_layers"): {
        "finetune.policy": ("lora",)
    },
    ("distill.weight", "distill.temperature"): {"distill.teacher": (ON,)},
}
READ_BY = {name: readers for names, readers in _READ_BY.items() for name in names}


def unread(parts: Iterable[tuple[Collection[str], Values]]) -> list[str]:
    """Say which settings change nothing in any part that names them.

    Args:
        parts: of a space, or one configuration: the names that somebody set, and what any may be.
    """
    is_read: dict[str, bool] = {}
    for names, values in parts:
        for name in READ_BY.keys() & names:
            is_read[name] = is_read.get(name, False) or _is_read(name, values)
    return [
        f"{name} changes nothing: only {_readers_text(READ_BY[name])} reads it"
        for name in READ_BY
        if is_read.get(name) is False
    ]


def unread_of(config: TrialConfig) -> list[str]:
    """Say which settings of a configuration are other than by default and change nothing."""
    own, usual = flatten(config), flatten(TrialConfig())
    named = [name for name, value in own.items() if value != usual.get(name)]
    return unread([(named, lambda name: (own[name],))])


def _is_read(name: str, values: Values) -> bool:
    return any(
        value in wanted or (ON in wanted and bool(value))
        for reader, wanted in READ_BY[name].items()
        for value in values(reader)
    )


def _readers_text(readers: dict[str, tuple[str, ...]]) -> str:
    return " or ".join(
        reader if ON in wanted else f"{reader} {' or '.join(wanted)}"
        for reader, wanted in readers.items()
    )
