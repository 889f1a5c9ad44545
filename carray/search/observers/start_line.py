"""What was drawn for a trial, as its start line says it, and what is planned of refits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from carray.config import TrialConfig, flatten
from carray.errors import as_yaml, counted
from carray.records import TrialRecord
from carray.search.scheduling.refits import Refit
from carray.search.space.space import SearchSpace
from carray.search.warm_start.known_recipes import refit_config
from carray.tracking.tracker import drawn_params

LR = "optimizer.lr"  # comes first
SAID_BEFORE = ("epochs", "seed", "image_size")  # of what a refit changes


def drawn_text(record: TrialRecord, others: Sequence[TrialRecord]) -> str:
    """Say what was drawn for a trial, where `others` differ from it; of an only one, all.

    Of a copy, which has a seed of its own, the first trial that it is like; of a refit, its trial
    and its length.
    """
    if record.refit_of is not None:
        of = next((one for one in others if one.number == record.refit_of), record)
        length = counted(record.config.epochs, "epoch")
        return f"trial {record.refit_of:04d} for {length}{_size_text(record.config, of.config)}"
    own = _drawn(record)
    same = set(own)
    for theirs in map(_drawn, others):
        same = {name for name in same if theirs.get(name) == own[name]}
        if not same:
            break
    shown = own if len(others) < 2 else {name: own[name] for name in own if name not in same}
    texts = [f"{name.rpartition('.')[2]} {text}" for name, text in shown.items()]
    texts += [f"as {twin:04d}, another seed" for twin in _twins(record, others)[:1]]
    return ", ".join(texts)


def _twins(record: TrialRecord, others: Sequence[TrialRecord]) -> list[int]:
    """Return the earlier trials of the search for which the same was drawn."""
    if record.kind != "search" or "seed" in record.params:
        return []
    earlier = (one for one in others if one.kind == "search" and one.number < record.number)
    return sorted(one.number for one in earlier if one.params == record.params)


def _drawn(record: TrialRecord) -> dict[str, str]:
    """Return what was drawn, as text, the learning rate first."""
    found = sorted(drawn_params(record).items(), key=lambda item: item[0] != LR)
    return {
        name: f"{value:.2g}" if isinstance(value, float) else as_yaml(value, quoted=False) or "none"
        for name, value in found
    }


def _size_text(config: TrialConfig, trials: TrialConfig) -> str:
    """Say which images a refit sees, where its trial's are others: ` at 224 px`."""
    size = config.image_size
    return f" at {size} px" if size != trials.image_size else ""


def refits_text(planned: Sequence[Refit], space: SearchSpace) -> str:
    """Say which trials are trained again, for how many epochs, and what is different then."""
    first, trials = planned[0], len({refit.of.number for refit in planned})
    best = "the best trial" if trials == 1 else f"the best {trials} trials"
    seeds = ""
    if any(refit.seed != refit.of.config.seed for refit in planned):
        seeds = f" with {counted(len(planned), 'further seed')}"
    each = Counter(refit.epochs for refit in planned)
    lengths = " and ".join(f"{count} for {epochs}" for epochs, count in each.items())
    length = f"{lengths} epochs" if len(each) > 1 else f"for {counted(first.epochs, 'epoch')}"
    config = refit_config(space, first.of, first.epochs, first.seed)
    changed = _size_text(config, first.of.config)
    before = flatten(first.of.config)
    for name, value in flatten(config).items():
        if name not in SAID_BEFORE and value != before.get(name):
            text = f"{value:g}" if isinstance(value, float) else as_yaml(value, quoted=False)
            changed += f", {name.rpartition('.')[2].replace('_', ' ')} {text}"
    whose = f", those of {first.epochs}" if changed and len(each) > 1 else ""
    return f"refit: {best} again{seeds}, {length}{whose}{changed}"
