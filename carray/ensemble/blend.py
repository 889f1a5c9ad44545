"""Which rule earns its place: each is scored on images that it wasn't fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from carray import metrics
from carray.ensemble.logits import Floats, Labels, Rows, SplitVotes, log_softmax
from carray.ensemble.rules import Blend, Rule

NUM_FOLDS = 5
TEMPERATURES = np.round(np.geomspace(0.25, 4.0, 25), 3)  # the middle one is exactly 1
TEMPERATURE_IMAGES = 4000  # one number needs no more


@dataclass(frozen=True)
class RuleScore:
    """How one rule did on images that it wasn't fitted to."""

    rule: str
    blend: Blend
    """Fitted to all images."""
    log_loss: float
    top1: float
    temperature_gain: float
    """How much the temperature lowered the log-loss; 0 where it didn't earn its place."""


def score_rule(rule: Rule, votes: SplitVotes, folds: Sequence[Rows]) -> RuleScore:
    """Cross-fit a rule and its temperature: each fold is scored by what the others taught."""
    blend = rule.fit(votes)
    log_p = _held_out_log_p(rule, blend, votes, folds)
    settled = settle_temperature(log_p, votes.labels, folds)
    return RuleScore(
        rule.name,
        blend.at(settled.temperature),
        float(settled.losses.mean()),
        top1(log_p, votes.labels),
        settled.gain,
    )


@dataclass(frozen=True)
class Settled:
    """A temperature, and each image's log-loss with what the other folds would have chosen."""

    temperature: float
    """1 where another didn't earn its place."""
    losses: Floats
    """(images,)."""
    calibrated: Floats
    """The same with a temperature in any case: whether one is worth it was decided on the very
    images, and answers that are compared should not differ by that luck."""
    gain: float
    """How much the temperature lowered the log-loss; 0 where it is 1."""


def settle_temperature(log_p: Floats, labels: Labels, folds: Sequence[Rows]) -> Settled:
    """Cross-fit a temperature; it must win by more than one standard error."""
    losses_NT = temperature_losses(log_p, labels)
    total_T = losses_NT.sum(axis=0)
    calibrated = np.empty(len(labels), np.float32)
    for held in folds:
        chosen = TEMPERATURES[(total_T - losses_NT[held].sum(axis=0)).argmin()]
        calibrated[held] = losses_of(log_softmax(log_p[held] / np.float32(chosen)), labels[held])
    plain = losses_of(log_p, labels)
    gains = plain - calibrated
    gain = float(gains.mean())
    if gain <= float(gains.std()) / np.sqrt(len(gains)):
        return Settled(1.0, plain, calibrated, 0.0)
    return Settled(float(TEMPERATURES[total_T.argmin()]), calibrated, calibrated, gain)


def losses_of(log_p: Floats, labels: Labels) -> Floats:
    """Return each image's log-loss, (N,)."""
    return np.asarray(-log_p[np.arange(len(labels)), labels], np.float32)


def pick(scores: Sequence[RuleScore], metric: str) -> RuleScore:
    """Return the rule with the least log-loss; with most top-1 where that is the metric."""
    if metric == metrics.VAL_LOG_LOSS:
        return min(scores, key=lambda score: score.log_loss)
    return max(scores, key=lambda score: (score.top1, -score.log_loss))


def make_folds(labels: Labels, seed: int = 0, num_folds: int = NUM_FOLDS) -> tuple[Rows, ...]:
    """Return the images' numbers in `num_folds` parts, classes spread evenly."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    parts = (by_class[fold::num_folds] for fold in range(min(num_folds, len(labels))))
    return tuple(np.sort(part) for part in parts)


def log_loss(log_p: Floats, labels: Labels) -> float:
    """Return the mean of -log p of the right class, natural logarithm."""
    return float(-log_p[np.arange(len(labels)), labels].astype(np.float64).mean())


def top1(log_p: Floats, labels: Labels) -> float:
    """Return the share of images whose likeliest class is right."""
    return float((log_p.argmax(axis=1) == labels).mean())


def temperature_losses(log_p: Floats, labels: Labels) -> Floats:
    """Return each image's log-loss at each of `TEMPERATURES`, (images, temperatures).

    At most `TEMPERATURE_IMAGES` images, evenly spread, are worked out; the rest is NaN-free by
    repeating the nearest of them, so means stay means over the same images.
    """
    step = -(-len(labels) // TEMPERATURE_IMAGES)
    some, own = log_p[::step], labels[::step]
    rows = np.arange(len(own))
    losses = np.stack([-log_softmax(some / t)[rows, own] for t in TEMPERATURES], axis=1)
    return np.repeat(losses, step, axis=0)[: len(labels)]


def _held_out_log_p(rule: Rule, blend: Blend, votes: SplitVotes, folds: Sequence[Rows]) -> Floats:
    """Return every image's log-probabilities by a blend that wasn't fitted to it."""
    if not rule.is_fitted:
        return blend.log_p(votes)
    everything = np.arange(len(votes.labels))
    blends = [rule.fit(votes, np.setdiff1d(everything, held)) for held in folds]
    votes.preload([member for fitted in blends for member in fitted.members])
    parts = [fitted.log_p(votes, held) for fitted, held in zip(blends, folds, strict=True)]
    log_p = np.empty((len(everything), parts[0].shape[1]), np.float32)
    for held, part in zip(folds, parts, strict=True):
        log_p[held] = part
    return log_p
