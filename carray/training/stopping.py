"""Stops trials: early stopping, and collapse (one answer for all images). Pure functions of rows.

A from-scratch net that says one class for every image looks like a slow starter for a while. Both
stand at chance, and batch statistics that lag behind give a healthy net a few one-class epochs
too. What tells them apart, measured on small nets: a healthy one's training loss is below chance
by its second epoch, or falls steadily; a collapsed one's is not and does not.

Where one class has most of the images, chance is cheap and saying that class alone is the natural
beginning. So a loss is called high by its nats over chance and not by its share of so small a
chance, and few classes say something only of a net to which images make hardly any odds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from carray import metrics
from carray.config import TrialConfig
from carray.errors import counted
from carray.metrics import EpochRow
from carray.models.names import SMALL_NET

EVALUATIONS = 3  # after warm-up, before the verdict on a net that exploded or died
WINDOW = 2  # of them, the last, must look collapsed
FLAT_EVALUATIONS = 6  # before the verdict on one that only stays where it is: it may be slow
FLAT_WINDOW = 3
FEW_CLASSES = 0.25  # entropy of the predictions over that of the labels; slow starters: over 0.3
LEARNS = 0.003  # train/skill above which a net is learning, whatever it says on `val`
LEARNED = 0.05  # val/skill that a trial must never have had
FALLS = 0.01  # share by which a training loss that started high falls in each epoch
FALLS_FAR = 0.1  # the same, after an explosion
EXPLODED = -0.2  # train/skill; val/skill below five times this says the same
DEAD = 1e-3  # val/logit_std: images make no odds
NUMB = 0.05  # val/logit_std: images make hardly any odds; healthy nets that start slowly: over 0.08
NUMB_RISE = 1.1  # growth over the window that says that they begin to
NEARLY_DEAD = 0.02  # no growth below it counts
EVEN_PAIR = math.log(2)  # chance of two equal classes, in nats; a cheaper one exaggerates skill
CRAWL, MOSTLY = 4, 0.75  # epochs at a tenth of the rate; the share of them that still helped
WAKES = 2.0  # growth of val/logit_std over the window
NEEDED = {metrics.TRAIN_SKILL, metrics.VAL_SKILL, metrics.VAL_SPREAD, metrics.VAL_LOGIT_STD}
FEW_FILTERS = 16  # half of the small net's own width
SMALL_CROP = 0.4  # of the image's area: a smaller crop may lose the object


@dataclass(frozen=True)
class Collapse:
    """Why a trial has most likely collapsed, and what shows that it has."""

    cause: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.evidence}; likely cause: {self.cause}"


def find_collapse(rows: Sequence[EpochRow], config: TrialConfig) -> Collapse | None:
    """Return the collapse that `rows`, one an epoch from the first, show; None where none does.

    A net whose loss exploded or whose activations died is told by the third evaluation after the
    warm-up; one that only stays at chance with few classes by the sixth.
    """
    if any(not row.keys() >= NEEDED for row in rows):  # written before these were measured
        return None
    counted = len(rows) - math.ceil(config.schedule.warmup_epochs)
    acute = _exploded(rows) or _dead(rows)
    needed, window = (EVALUATIONS, WINDOW) if acute else (FLAT_EVALUATIONS, FLAT_WINDOW)
    ever_learned = any(row[metrics.VAL_SKILL] > LEARNED for row in rows)
    if counted < needed or ever_learned or not _looks_collapsed(rows[-window:]):
        return None
    still_exploded = min(_train_skill(rows[-1]), _val_skill(rows[-1])) < 5 * EXPLODED
    rises = not acute and _wakes(rows[-window:])
    recovers = rises or _falls(rows[-window - 1 :], FALLS_FAR if acute else FALLS)
    if not still_exploded and (recovers or not _is_numb(rows[-window:])):
        return None
    return Collapse(_cause(rows, config), _evidence(rows))


def _looks_collapsed(rows: Sequence[EpochRow]) -> bool:
    return all(
        row[metrics.TRAIN_SKILL] <= LEARNS
        and (row[metrics.VAL_SPREAD] < FEW_CLASSES or _val_skill(row) < 5 * EXPLODED)
        for row in rows
    )


def _falls(rows: Sequence[EpochRow], share: float) -> bool:
    """Say whether the training loss fell by so much of it in every epoch."""
    losses = [row[metrics.TRAIN_LOSS] for row in rows]
    return all(after < (1 - share) * before for before, after in pairwise(losses))


def _dead(rows: Sequence[EpochRow]) -> bool:
    tiny = all(row[metrics.VAL_LOGIT_STD] < DEAD for row in rows[-WINDOW:])
    return tiny and not _wakes(rows[-WINDOW:])


def _wakes(rows: Sequence[EpochRow]) -> bool:
    """Say whether images make more and more odds: batch statistics catch up with the weights."""
    return rows[-1][metrics.VAL_LOGIT_STD] > WAKES * rows[0][metrics.VAL_LOGIT_STD] > 0


def _exploded(rows: Sequence[EpochRow]) -> bool:
    return any(
        (_train_skill(row) < EXPLODED and _val_skill(row) < EXPLODED)
        or _val_skill(row) < 5 * EXPLODED
        for row in rows
    )


def _is_numb(rows: Sequence[EpochRow]) -> bool:
    """Say whether images make hardly any odds, and don't begin to."""
    odds = [row[metrics.VAL_LOGIT_STD] for row in rows]
    begins = odds[-1] > max(NUMB_RISE * odds[0], NEARLY_DEAD)
    return max(odds) < NUMB and not begins


def _val_skill(row: EpochRow) -> float:
    return row[metrics.VAL_SKILL] * _evenness(row)


def _train_skill(row: EpochRow) -> float:
    return row[metrics.TRAIN_SKILL] * _evenness(row)


def _evenness(row: EpochRow) -> float:
    """Return chance over that of two equal classes, at most 1: what skill is worth in nats."""
    return min(1.0, _chance(row) / EVEN_PAIR)


def _chance(row: EpochRow) -> float:
    """Return the log-loss of always saying the classes' shares: the labels' entropy, in nats."""
    return row[metrics.VAL_LOG_LOSS] / max(1 - row[metrics.VAL_SKILL], 1e-12)


def _evidence(rows: Sequence[EpochRow]) -> str:
    last = rows[-1]
    chance = _chance(last)
    predicted, present = math.exp(last[metrics.VAL_SPREAD] * chance), math.exp(chance)
    is_even = abs(present - round(present)) < 0.05
    classes = f"{present:.0f} classes" if is_even else f"{present:.1f} classes (as even ones count)"
    return (
        f"collapsed by epoch {len(rows)}: predictions fall on about {predicted:.1f} of "
        f"{classes}, val log-loss is {last[metrics.VAL_LOG_LOSS]:.4g} where chance is "
        f"{chance:.4g}, and the training loss {last[metrics.TRAIN_LOSS]:.4g} is no better"
    )


def _cause(rows: Sequence[EpochRow], config: TrialConfig) -> str:
    """Name the first cause that the rows or the configuration speak for."""
    optimizer, schedule = config.optimizer, config.schedule
    if _exploded(rows):
        worst = max(range(len(rows)), key=lambda at: rows[at][metrics.TRAIN_LOSS])
        return (
            f"optimizer.lr={optimizer.lr:g} is too high (the training loss reached "
            f"{rows[worst][metrics.TRAIN_LOSS]:.4g} in epoch {worst + 1}); try "
            f"{optimizer.lr / 10:g} or less, or a warm-up"
        )
    if _dead(rows):
        has_norms = config.backbone != SMALL_NET or config.scratch.batch_norm
        return (
            "dead activations (the logits no longer depend on the image); lower "
            f"optimizer.lr={optimizer.lr:g}" + " or set scratch.batch_norm=true" * (not has_norms)
        )
    cut = _cut_by_plateau(rows, config)
    if cut is not None:
        return (
            f"plateau cut the lr to {rows[-1][metrics.LR]:.2g} after epoch {cut} before anything "
            f"was learned; raise schedule.plateau_patience={schedule.plateau_patience} or take "
            "schedule.name=cosine"
        )
    return _crop_cause(config)


def _cut_by_plateau(rows: Sequence[EpochRow], config: TrialConfig) -> int | None:
    """Return the epoch after which plateau lowered the lr, None if it hasn't."""
    if config.schedule.name != "plateau":
        return None
    rates = [row.get(metrics.LR, math.nan) for row in rows]  # a fitted head's have none
    cuts = [at for at in range(1, len(rates)) if rates[at] < 0.999 * rates[at - 1]]
    return cuts[0] if cuts else None


def starved_by_plateau(rows: Sequence[EpochRow], config: TrialConfig) -> str:
    """Say that plateau took the rate from a net that was still learning; "" where it didn't.

    That one goes on learning slowly: since the rate was a tenth, for `CRAWL` epochs or more, its
    val log-loss has fallen in most of them, the last included. Another stands still by then.

    Args:
        rows: one an epoch, from the first.
        config: of the trial.
    """
    cut = _cut_by_plateau(rows, config)
    if cut is None:
        return ""
    peak = max(row[metrics.LR] for row in rows)
    low = next((at for at in range(cut, len(rows)) if rows[at][metrics.LR] <= peak / 10), len(rows))
    losses = [row[metrics.VAL_LOG_LOSS] for row in rows[max(0, low - 1) :]]
    falls = [after < before for before, after in pairwise(losses)]
    if len(falls) < CRAWL or losses[-1] > min(losses) or sum(falls) < MOSTLY * len(falls):
        return ""
    return (
        f"plateau cut the lr to {rows[low][metrics.LR]:.2g} after epoch {low} of {len(rows)}, and "
        f"the val log-loss fell in {sum(falls)} of {len(falls)} epochs since, to the last: raise "
        f"schedule.plateau_patience={config.schedule.plateau_patience} or take schedule.name=cosine"
    )


def _crop_cause(config: TrialConfig) -> str:
    from carray.data.pixels.augment_ranges import ranges_of

    augment = config.augment
    smallest = ranges_of(augment).crop_area_min
    if smallest < SMALL_CROP:
        dials = (
            f"strength={augment.strength:g} cuts down to {smallest:.0%} of the image); lower it"
            if augment.crop_min_area is None
            else f"crop_min_area={smallest:g}); raise it"
        )
        return f"crops that lose the object (augment.{dials}"
    if config.fit == "crop":
        return "a crop that loses the object (fit=crop cuts off both ends); use squash or pad"
    if config.backbone == SMALL_NET and config.scratch.filters < FEW_FILTERS:
        return (
            f"a net too small for the task (scratch.filters={config.scratch.filters}): "
            "`carray sanity` tells whether a wider one passes"
        )
    return (
        f"none stands out; try another optimizer.lr than {config.optimizer.lr:g}, batch norm, "
        "and `carray sanity`"
    )


def stop_reason(rows: Sequence[EpochRow], config: TrialConfig) -> tuple[str, str]:
    """Return why a trial with these epochs ends though some are left, "" if it doesn't, and how."""
    collapse = find_collapse(rows, config) if rows and config.stop_collapsed else None
    if collapse:
        return str(collapse), "collapsed"
    patience = config.early_stop_patience
    waited = len(rows) - max(best_epoch(rows, config), config.schedule.restart_after)
    if not patience or waited < patience:
        return "", "complete"
    reason = f"{config.best_metric} has not improved for {counted(waited, 'epoch')}"
    return f"{reason} (early_stop_patience={patience})", "complete"


def best_epoch(rows: Sequence[EpochRow], config: TrialConfig) -> int:
    """Return the 1-based best of these epochs; the last where none can be told better."""
    return metrics.best_epoch(rows, config.best_metric) or len(rows)
