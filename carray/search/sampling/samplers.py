"""Optuna's samplers by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import optuna

from carray.errors import ConfigError, did_you_mean
from carray.search.sampling.local import LocalSampler

STARTUP_TRIALS = 3  # random ones before univariate TPE learns; Optuna's ten are half a short study
POPULATION = 10  # of a generation; Optuna's fifty are more than most studies' trials

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    # group: each backbone's own block is modelled jointly too, not only what all trials share
    "tpe": lambda seed: optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=True, constant_liar=True
    ),
    "tpe-univariate": lambda seed: optuna.samplers.TPESampler(
        seed=seed, multivariate=False, n_startup_trials=STARTUP_TRIALS, constant_liar=True
    ),
    "tpe-local": lambda seed: LocalSampler(SAMPLERS["tpe-univariate"](seed), seed),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "qmc": lambda seed: optuna.samplers.QMCSampler(seed=seed),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION),
}

FOR_SEVERAL = ("tpe", "tpe-univariate", "nsga2", "gp", "random", "qmc")
"""Those that take several objectives, the default first."""

BLIND = ("random", "qmc")  # what learns nothing from trials is wanted for its own draws


DEFAULT_SAMPLER = "tpe-local"  # what did best in the lab: see `LocalSampler`


def build_sampler(name: str, seed: int, trials: int | None = None) -> optuna.samplers.BaseSampler:
    """Build the sampler `name`, for a study of so many trials.

    Raises:
        ConfigError: there is none of that name, or a package that it needs is missing.
    """
    if name not in SAMPLERS:
        hint = did_you_mean(name, SAMPLERS)
        raise ConfigError(f"unknown sampler {name!r}{hint} (there are {', '.join(SAMPLERS)})")
    with warnings.catch_warnings(action="ignore"):  # `group` is marked experimental
        try:
            sampler = SAMPLERS[name](seed)
        except ImportError as error:
            raise ConfigError(
                f"sampler {name!r} needs a package that is missing: {error}"
            ) from None
    if isinstance(sampler, LocalSampler):
        sampler.trials = trials
    return sampler
