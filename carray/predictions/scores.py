"""Log-loss and top-1 of predictions, and a temperature fitted by cross-fitting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carray import metrics
from carray.predictions.logits import log_softmax
from carray.typing import Float32s, Labels, Rows

NUM_FOLDS = 5
TEMPERATURES = np.array(metrics.TEMPERATURES)
TEMPERATURE_IMAGES = 4000  # one number needs no more
FEWEST_IMAGES = 40  # that a temperature is fitted to
LOG_SCALE_SD = 0.5  # of the scales that logits are expected to need, about 1
_PENALTY_T = np.log(TEMPERATURES) ** 2 / (2 * LOG_SCALE_SD**2)

Labelled = tuple[Float32s, Labels]
"""Log-probabilities, (images, classes), and the images' labels."""


@dataclass(frozen=True)
class CalibrationFit:
    """A temperature, and each image's log-loss with what the other folds would have chosen."""

    temperature: float
    losses: Float32s
    """(images,)."""


def cross_fit_temperature(
    log_p: Float32s, labels: Labels, folds: Sequence[Rows], beside: Labelled | None = None
) -> CalibrationFit:
    """Cross-fit a temperature; images `beside` those that are scored help to choose it."""
    scaled, temperature = cross_fitted_log_p(log_p, labels, folds, beside)
    return CalibrationFit(temperature, log_losses(scaled, labels))


def cross_fitted_log_p(
    log_p: Float32s, labels: Labels, folds: Sequence[Rows], beside: Labelled | None = None
) -> tuple[Float32s, float]:
    """Return (images, classes), each image at the temperature that suits the other folds best, and
    the temperature that suits all.

    It is `fitted_temperature`'s: 1 where there are too few images to tell, or where the images that
    are scored lose by it. Those `beside` may look too sure: `val` has chosen the trials. Its
    logarithm has a normal prior: images that are all right would ask for the least temperature.
    """
    losses_NT = temperature_losses(log_p, labels)
    total_T, images = losses_NT.sum(axis=0) + _PENALTY_T, len(labels)
    if beside is not None:
        total_T, images = total_T + temperature_losses(*beside).sum(axis=0), images + len(beside[1])
    if images < FEWEST_IMAGES:
        return log_p, 1.0
    scaled = np.empty_like(log_p)
    for held in folds or make_folds(labels):
        chosen = TEMPERATURES[(total_T - losses_NT[held].sum(axis=0)).argmin()]
        scaled[held] = log_softmax(log_p[held] / np.float32(chosen))
    if log_losses(scaled, labels).mean() >= log_losses(log_p, labels).mean():
        return log_p, 1.0
    return scaled, float(TEMPERATURES[total_T.argmin()])


def fitted_temperature(log_p: Float32s, labels: Labels, beside: Labelled | None = None) -> float:
    """Return what logits are best divided by; 1 where that isn't seen to help, see above."""
    return cross_fitted_log_p(log_p, labels, (), beside)[1]


def log_losses(log_p: Float32s, labels: Labels) -> Float32s:
    """Return each image's log-loss, (N,)."""
    return np.asarray(-log_p[np.arange(len(labels)), labels], np.float32)


def make_folds(labels: Labels, seed: int = 0, num_folds: int = NUM_FOLDS) -> tuple[Rows, ...]:
    """Return the images' numbers in `num_folds` parts, classes spread evenly."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    parts = (by_class[fold::num_folds] for fold in range(min(num_folds, len(labels))))
    return tuple(np.sort(part) for part in parts)


def log_loss(log_p: Float32s, labels: Labels) -> float:
    """Return the mean of -log p of the right class, natural logarithm."""
    return float(-log_p[np.arange(len(labels)), labels].astype(np.float64).mean())


def calibrated_log_loss(log_p: Float32s, labels: Labels) -> float:
    """Return the log-loss at the one of `TEMPERATURES` that lowers it most on these images.

    A single number is fitted to all images, so it flatters by some 1 / (2 images) nats. Guo et al.,
    "On Calibration of Modern Neural Networks", ICML 2017.
    """
    return log_loss(log_softmax(log_p / np.float32(best_temperature(log_p, labels))), labels)


def best_temperature(logits: npt.NDArray[np.floating], labels: Labels) -> float:
    """Return what logits are best divided by on these images."""
    return float(TEMPERATURES[temperature_losses(logits, labels).sum(axis=0).argmin()])


def top1(log_p: Float32s, labels: Labels) -> float:
    """Return the share of images whose likeliest class is right."""
    return float((log_p.argmax(axis=1) == labels).mean())


def top5(log_p: Float32s, labels: Labels) -> float:
    """Return the share of images whose right class is among the five likeliest."""
    own = log_p[np.arange(len(labels)), labels]
    return float(((log_p > own[:, None]).sum(axis=1) < 5).mean())


def macro_f1(log_p: Float32s, labels: Labels) -> float:
    """Return the mean F1 over the classes that are there or were predicted."""
    right, predicted, there = _class_counts(log_p, labels)
    seen = (predicted + there) > 0
    return float((2 * right[seen] / (predicted + there)[seen]).mean())


def balanced_accuracy(log_p: Float32s, labels: Labels) -> float:
    """Return the mean over the classes that are there of the share of their images right."""
    right, _, there = _class_counts(log_p, labels)
    return float((right[there > 0] / there[there > 0]).mean())


def _class_counts(log_p: Float32s, labels: Labels) -> tuple[Labels, Labels, Labels]:
    """Return how many images of each class are right, predicted and there."""
    answers, classes = log_p.argmax(axis=1), log_p.shape[1]
    of = (labels[answers == labels], answers, labels)
    right, predicted, there = (np.bincount(each, minlength=classes) for each in of)
    return right, predicted, there


SCORES = {
    metrics.VAL_LOG_LOSS: log_loss,
    metrics.VAL_CALIBRATED_LOG_LOSS: calibrated_log_loss,
    metrics.VAL_TOP1: top1,
    metrics.VAL_TOP5: top5,
    metrics.VAL_MACRO_F1: macro_f1,
    metrics.VAL_BALANCED_ACCURACY: balanced_accuracy,
}
"""Each objective's own function of log-probabilities (images, classes) and labels."""


def temperature_losses(log_p: npt.NDArray[np.floating], labels: Labels) -> Float32s:
    """Return each image's log-loss at each of `TEMPERATURES`, (images, temperatures).

    At most `TEMPERATURE_IMAGES` images, evenly spread, are worked out; the rest is NaN-free by
    repeating the nearest of them, so means stay means over the same images.
    """
    step = -(-len(labels) // TEMPERATURE_IMAGES)
    some, own = log_p[::step], labels[::step]
    rows = np.arange(len(own))
    losses = np.stack([-log_softmax(some / t)[rows, own] for t in TEMPERATURES], axis=1)
    return np.repeat(losses, step, axis=0)[: len(labels)]
