"""Who draws the trials: Optuna's samplers, by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna

from carray.errors import ConfigError, did_you_mean

STARTUP_TRIALS = 3  # random ones before univariate TPE learns; Optuna's ten are half a short study

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    # group: each backbone's own block is modelled jointly too, not only what all trials share
    "tpe": lambda seed: optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=True, constant_liar=True
    ),
    "tpe-univariate": lambda seed: optuna.samplers.TPESampler(
        seed=seed, multivariate=False, n_startup_trials=STARTUP_TRIALS, constant_liar=True
    ),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
}

BLIND = ("random", "qmc")  # what learns nothing from trials is wanted for its own draws


def default_sampler(has_blocks: bool) -> str:
    """Return who draws where nobody is named: what did best in the lab.

    Of 40 random trainings' epochs, univariate TPE needs 22 % on LCBench, the joint one 31 %. With
    blocks they were alike, and the joint one knows each block.
    """
    return "tpe" if has_blocks else "tpe-univariate"


def build_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Build the sampler `name`.

    Raises:
        ConfigError: there is none of that name, or a package that it needs is missing.
    """
    if name not in SAMPLERS:
        hint = did_you_mean(name, SAMPLERS)
        raise ConfigError(f"unknown sampler {name!r}{hint} (there are {', '.join(SAMPLERS)})")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `group` is marked experimental
        try:
            return SAMPLERS[name](seed)
        except ImportError as error:
            raise ConfigError(
                f"sampler {name!r} needs a package that is missing: {error}"
            ) from None
