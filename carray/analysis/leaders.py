"""Which trials can't be told from a study's best, how far seeds differ, how lucky the best is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from carray import metrics
from carray.config import TrialConfig
from carray.predictions.logits import read_logits, true_log_probability
from carray.predictions.scores import best_temperature
from carray.predictions.statistics import Interval, mean_interval, paired_gain
from carray.records import StudyFolder, TrialRecord, TrialState
from carray.typing import Float32s, Labels

MOST_TRIALS = 100  # the best ones, which are looked at
FEWEST_IMAGES = 40  # of `blend`, to say how lucky a choice was
FEWEST_TRIALS = 5  # the same, of a study


@dataclass(frozen=True)
class Repeated:
    """A configuration that was trained with several seeds."""

    trials: tuple[str, ...]
    """Their names, the best first."""
    mean: float
    """Of the study's metric."""
    deviation: float
    """Between seeds."""


@dataclass(frozen=True)
class Optimism:
    """How much better the best trial looks on `val`, which chose it, than it is."""

    val: float
    """Its log-loss there."""
    blend: float
    """The same on images that chose nothing."""
    value: float
    """By how much more that is higher than for the study's other trials on average."""
    deviation: float
    """Of that difference between the others: a smaller value is no sign of anything."""


@dataclass(frozen=True)
class Leaders:
    """A study's best trials, as far as `val` can tell them apart."""

    compared_by: str
    """A log-loss as the study optimises it, or `val/top1` where that is a share of images."""
    images: int
    best: str
    behind: Mapping[str, Interval]
    """By other trial: how much worse than the best, paired by image; above zero is worse."""
    repeated: tuple[Repeated, ...]
    optimism: Optimism | None
    """None where there are too few trials, or images in `blend`."""

    def ties(self) -> list[str]:
        """Return the other trials that can't be told from the best."""
        return [name for name, each in self.behind.items() if not each.excludes_zero()]


def leaders_of(folder: StudyFolder) -> Leaders | None:
    """Compare a study's trials with its best on `val`; folds, judged elsewhere, are left out.

    Returns:
        None where fewer than two trials have left logits.

    Raises:
        RecordError: logits are broken, or of other data.
    """
    objective = folder.record().objective
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    records = [
        record
        for record in sorted(folder.records(), key=objective.key_of)
        if record.state in ended
        and record.config.fold is None
        and folder.trial(record.number).logits_file.exists()
    ][:MOST_TRIALS]
    if len(records) < 2:
        return None
    is_loss = objective.metric in metrics.LOG_LOSSES
    labels = folder.labels("val")
    on_val = [read_on_val(folder, record, labels, objective.metric) for record in records]
    behind = [_behind(on_val[0], other, is_loss) for other in on_val[1:]]
    names = [record.name for record in records[1:]]
    return Leaders(
        compared_by=objective.metric if is_loss else metrics.VAL_TOP1,
        images=len(labels),
        best=records[0].name,
        behind=dict(zip(names, behind, strict=True)),
        repeated=_repeated(records, objective),
        optimism=_optimism(folder, records, on_val),
    )


class OnSplit(NamedTuple):
    """What a trial reached on a split: each image's log-loss, and whether it was right."""

    losses: Float32s
    right: npt.NDArray[np.bool_]
    temperature: float
    """That its logits were divided by."""


def read_on_val(folder: StudyFolder, record: TrialRecord, labels: Labels, metric: str) -> OnSplit:
    """Read what a trial reached on `val`, as a study of this metric compares trials.

    Where it compares calibrated log-losses, at the temperature that suits these images best.

    Raises:
        RecordError: logits are broken, or of other data.
    """
    own = None if metric == metrics.VAL_CALIBRATED_LOG_LOSS else 1.0
    return _read(folder, record, "val", labels, own)


def _read(
    folder: StudyFolder, record: TrialRecord, split: str, labels: Labels, temperature: float | None
) -> OnSplit:
    """Read a trial's logits at a temperature; None takes the one that suits these images best."""
    logits = read_logits(folder.trial(record.number), record.name, split, len(labels))
    if temperature is None:
        temperature = best_temperature(logits, labels)
    losses = -true_log_probability(logits / np.float32(temperature), labels)
    return OnSplit(losses, logits.argmax(axis=1) == labels, temperature)


def _behind(best: OnSplit, other: OnSplit, is_loss: bool) -> Interval:
    if not is_loss:
        return paired_gain(other.right, best.right)
    return mean_interval(other.losses - best.losses)


def by_configuration(records: Iterable[TrialRecord]) -> list[list[TrialRecord]]:
    """Put trials together that differ in their seed alone; groups and trials keep their order."""
    groups: list[tuple[TrialConfig, list[TrialRecord]]] = []
    for record in records:
        config = record.config.without_seed()
        group = next((each for known, each in groups if known == config), None)
        if group is None:
            groups.append((config, [record]))
        else:
            group.append(record)
    return [group for _, group in groups]


def _repeated(records: Sequence[TrialRecord], objective: metrics.Objective) -> tuple[Repeated, ...]:
    """Return the configurations of several complete trials, in the order of their best."""
    complete = [record for record in records if record.state is TrialState.COMPLETE]
    found = []
    for group in by_configuration(complete):
        if len(group) > 1:
            values = [record.best(objective.metric) for record in group]
            names = tuple(record.name for record in group)
            found.append(Repeated(names, float(np.mean(values)), float(np.std(values, ddof=1))))
    return tuple(found)


def _optimism(
    folder: StudyFolder, records: Sequence[TrialRecord], on_val: Sequence[OnSplit]
) -> Optimism | None:
    """Hold the best trial's loss on `blend` less that on `val` against the others' mean."""
    labels = folder.labels("blend")
    if len(labels) < FEWEST_IMAGES or len(records) < FEWEST_TRIALS:
        return None
    on_blend = [
        _read(folder, record, "blend", labels, there.temperature)
        for record, there in zip(records, on_val, strict=True)
    ]
    before, after = ([float(each.losses.mean()) for each in on] for on in (on_val, on_blend))
    rises = np.subtract(after, before)
    value, deviation = rises[0] - rises[1:].mean(), rises[1:].std(ddof=1)
    return Optimism(before[0], after[0], float(value), float(deviation))
