"""Which draws are certain not to fit, by the trials that memory didn't suffice for."""

from __future__ import annotations

from collections.abc import Iterable

from carray.config import TrialConfig
from carray.records import TrialRecord
from carray.search.space.space import SearchSpace

DECIDES = (  # beginnings of the names that decide how much memory a trial takes
    "backbone",
    "image_size",
    "device_batch_size",
    "accumulation",
    "grad_checkpointing",
    "ema_decay",
    "precision",
    "compile",
    "optimizer.name",
    "distill.teacher",
    "scratch.",
    "head.",
    "finetune.",
)


def memory_varies(space: SearchSpace) -> bool:
    """Say whether a space's trials may take more or less memory: else none can be avoided."""
    branches = [block for _, block in space.branches()]
    drawn = {name for block in branches for name in block.search}
    return len(branches) > 1 or any(name.startswith(DECIDES) for name in drawn)


def needs_as_much(config: TrialConfig, other: TrialConfig) -> bool:
    """Say whether a trial takes at least the memory of another: alike, and nowhere smaller."""
    larger = all(own >= theirs for own, theirs in zip(_sizes(config), _sizes(other), strict=True))
    return larger and _kind(config) == _kind(other)


def _sizes(config: TrialConfig) -> tuple[int, ...]:
    """Return what takes more memory the larger it is."""
    keeps_all, averages = not config.grad_checkpointing, config.ema_decay > 0
    return config.image_size, config.device_batch_size, keeps_all, averages


def _kind(config: TrialConfig) -> tuple[object, ...]:
    """Return what must be alike for two trials' memory to be compared."""
    return (
        config.backbone,
        config.scratch,
        config.head.model_copy(update={"seed": None}),
        config.finetune,
        config.precision,
        config.compile,
        config.optimizer.name,
        bool(config.distill.teacher),
        config.accumulation > 1,
    )


def too_large(
    config: TrialConfig, infeasible: Iterable[TrialRecord], known: Iterable[TrialRecord]
) -> TrialRecord | None:
    """Return one of the `infeasible` trials that shows that `config` can't fit; None if it may.

    One that a trial of `known` contradicts, which trained with as much, shows nothing: it was on a
    smaller device, say.
    """
    for record in infeasible:
        if needs_as_much(config, record.config):
            trained = (each for each in known if each.epochs and not is_halved(each))
            if not any(needs_as_much(each.config, record.config) for each in trained):
                return record
    return None


def is_halved(record: TrialRecord) -> bool:
    """Say whether a trial took its batches in halves, for want of memory."""
    return record.compute is not None and record.compute.halved


def too_large_text(record: TrialRecord) -> str:
    """Say what an infeasible trial means for the draws that come."""
    config = record.config
    return (
        f"trial {record.number:04d} ran out of memory ({config.backbone}, {config.image_size} px, "
        f"device_batch_size {config.device_batch_size}): what needs as much is drawn again"
    )
