"""What further trials would bring an ensemble, by what its last ones brought.

Trials that come in no particular order are worth more the fewer there were before. So what a
random few of those there are brought when added last, shrunk as a mean of `1 / trials` shrinks, is
an estimate of what as many further ones will bring. A search that learns may bring more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from carray.predictions.averaging import TINY, best_alone, pick_from_best
from carray.typing import Float32s

ORDERS = 20  # random ones that a mean is taken over
MOST_IMAGES = 2000  # that it is judged on: more say little more, and take longer
SPREAD = 2.0  # the true deviation over that of random orders of one study, whose trials overlap:
# 83 and 67 % of forecasts came within it on two sets, 75 and 63 % on two that it wasn't chosen on
FEWEST_TRIALS = 6


@dataclass(frozen=True)
class ExpectedGain:
    """How much lower the log-loss of an ensemble is expected to be after further trials."""

    trials: int
    """How many further ones."""
    log_loss: float
    """Above zero is better."""
    deviation: float
    """Of it, between one set of trials and another."""


def expected_gain(p_MN: Float32s, trials: int, is_single: bool = False) -> ExpectedGain | None:
    """Estimate what `trials` further trials like these bring.

    Args:
        p_MN: each trial's probability of the right class of each image.
        trials: how many further ones, 1 or more.
        is_single: whether the best single trial counts, not an ensemble.

    Returns:
        None where there are too few trials to say.
    """
    total = len(p_MN)
    if total < FEWEST_TRIALS:
        return None
    rng = np.random.default_rng(0)
    left_out = min(trials, total // 2)
    whole = cross_fitted_loss(p_MN, is_single)
    gains = np.array(
        [
            cross_fitted_loss(p_MN[rng.permutation(total)[left_out:]], is_single) - whole
            for _ in range(ORDERS)
        ]
    )
    # E(n) = a + b / n: what the last ones brought, over what the next ones will
    before, after = 1 / (total - left_out) - 1 / total, 1 / total - 1 / (total + trials)
    shrunk = gains * after / before
    return ExpectedGain(trials, float(shrunk.mean()), SPREAD * float(shrunk.std(ddof=1)))


def cross_fitted_loss(p_MN: Float32s, is_single: bool = False) -> float:
    """Return the log-loss of a greedy ensemble, or of the best trial, chosen on other images.

    Every other image chooses for those between; without that, more trials always look better.
    """
    losses = []
    p_MN = p_MN[:, :: -(-p_MN.shape[1] // MOST_IMAGES)]
    for chosen_on, judged_on in ((p_MN[:, ::2], p_MN[:, 1::2]), (p_MN[:, 1::2], p_MN[:, ::2])):
        picks = best_alone(chosen_on, 1) if is_single else pick_from_best(chosen_on)
        losses.append(-np.log(np.maximum(judged_on[picks].mean(axis=0), TINY)))
    return float(np.concatenate(losses).mean())
