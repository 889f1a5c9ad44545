"""What a search brought over its own first recipe: as many trials of each, as ensembles, paired.

The first recipe is the best of the points that the study was given to start from, with its further
seeds; of a study that was given none, what it repeated first, else its first trial's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from carray import metrics
from carray.analysis.leaders import by_configuration
from carray.predictions.averaging import WeightedAverage
from carray.predictions.candidates import candidate_of
from carray.predictions.logits import SplitPredictions
from carray.predictions.scores import cross_fit_temperature, make_folds
from carray.predictions.statistics import (
    Interval,
    Right,
    Verdict,
    bootstrap_means,
    gain_verdict,
    interval,
    mcnemar_exact,
    two_sided_p,
)
from carray.records import StudyFolder, TrialRecord, TrialState
from carray.typing import Float32s, Labels

MEMBERS = 3  # at most, of either side
FEWEST_IMAGES = 40  # of a split that says anything


@dataclass(frozen=True)
class SearchGain:
    """The best trials of a search against seeds of the recipe that it tried first."""

    split: Literal["blend", "val"]
    """`val` where there is no blend: its images have chosen the best trials, who look better so."""
    images: int
    members: int
    """Trials of either side."""
    best: tuple[str, ...]
    """Names of the search's best trials, the best first."""
    recipe: tuple[str, ...]
    """Names of the trials of the first recipe."""
    best_loss: float
    """Log-loss of the mean of their probabilities, each side with a temperature."""
    recipe_loss: float
    gain: Interval
    """How much lower the best's is; above zero is better."""
    p: float
    best_top1: float
    """Share right of the best's vote, in [0, 1]."""
    recipe_top1: float
    top1_p: float
    """That the shares are alike, by McNemar's exact test."""
    seed_spread: float | None
    """Standard deviation of the recipe's log-loss on `val` between seeds; None: it has one."""
    best_seconds: float
    """Of training all trials of the search, those that were stopped or failed included."""
    recipe_seconds: float

    @property
    def verdict(self) -> Verdict:
        """Whether the difference is shown."""
        return gain_verdict(self.gain)


def search_gain(folder: StudyFolder) -> SearchGain | None:
    """Compare a study's best trials with those of its first recipe.

    Returns:
        None where that can't be said: fewer than two complete trials with logits, all of them of
        one configuration, no first recipe that is complete, or too few images.

    Raises:
        RecordError: logits are broken, or of other data.
    """
    study = folder.record()
    searched = [record for record in folder.records() if record.kind == "search"]
    complete = [
        record
        for record in searched
        if record.state is TrialState.COMPLETE and folder.trial(record.number).logits_file.exists()
    ]
    recipe = _first_recipe(complete, study.objective)[:MEMBERS]
    if not recipe or len(by_configuration(complete)) < 2:
        return None
    blend = folder.labels("blend")
    on_blend = len(blend) >= FEWEST_IMAGES
    labels = blend if on_blend else folder.labels("val")
    best = sorted(complete, key=study.objective.key_of)[: len(recipe)]
    if len(labels) < FEWEST_IMAGES:
        return None
    split: Literal["blend", "val"] = "blend" if on_blend else "val"
    losses, right = zip(
        *(_losses_and_right(folder, side, split, labels) for side in (best, recipe)), strict=True
    )
    gains = losses[1] - losses[0]
    means = bootstrap_means(gains[:, None])[:, 0]
    spread_in = study.metric if study.metric in metrics.LOG_LOSSES else metrics.VAL_LOG_LOSS
    on_val = [record.best(spread_in) for record in recipe]
    return SearchGain(
        split=split,
        images=len(labels),
        members=len(recipe),
        best=tuple(record.name for record in best),
        recipe=tuple(record.name for record in recipe),
        best_loss=float(losses[0].mean()),
        recipe_loss=float(losses[1].mean()),
        gain=interval(float(gains.mean()), means),
        p=two_sided_p(means),
        best_top1=float(right[0].mean()),
        recipe_top1=float(right[1].mean()),
        top1_p=mcnemar_exact(int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())),
        seed_spread=float(np.std(on_val, ddof=1)) if len(on_val) > 1 else None,
        best_seconds=sum(record.trained_seconds for record in searched),
        recipe_seconds=sum(record.trained_seconds for record in recipe),
    )


def _first_recipe(
    complete: Sequence[TrialRecord], objective: metrics.Objective
) -> list[TrialRecord]:
    """Return the trials of the best given point, else of the first one repeated, or trial 0's.

    Empty where neither is complete.
    """
    groups = by_configuration(complete)
    if given := [group for group in groups if group[0].is_given]:
        return min(given, key=lambda group: objective.key_of(group[0]))
    if not complete or complete[0].number != 0:
        return []
    repeated = [group for group in groups if len(group) > 1]
    return min(repeated, key=lambda group: group[1].number, default=groups[0])


def _losses_and_right(
    folder: StudyFolder, side: Sequence[TrialRecord], split: str, labels: Labels
) -> tuple[Float32s, Right]:
    """Return each image's log-loss of a soft vote, its temperature from others; if it is right."""
    predictions = SplitPredictions([candidate_of(folder, r) for r in side], split, labels)
    vote = WeightedAverage(tuple(range(len(side))), (1 / len(side),) * len(side))
    on_val = predictions.beside(folder.labels("val"))
    beside = (vote.log_p(on_val), on_val.labels) if on_val else None
    log_p, folds = vote.log_p(predictions), make_folds(labels)
    losses = cross_fit_temperature(log_p, labels, folds, beside).losses
    return losses, log_p.argmax(axis=1) == labels
