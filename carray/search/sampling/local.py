"""Small changes of what is good already, further seeds of it, and a sampler that learns from all.

Trainings are few and noisy. A sampler that models the whole space has seen too little to beat a
known recipe for its first dozens of trials, while a changed copy of a good one is nearly as good by
itself, and differs enough to help in an ensemble (Wenzel et al., "Hyperparameter Ensembles for
Robustness and Uncertainty Quantification", NeurIPS 2020).

On LCBench, regret after the epochs of 5, 10 and 20 full trainings (0: the best of 60 random ones,
1: their median; 3 seeds). From starting points of the other data sets, 8 data sets: -0.14, -0.33,
-0.51; univariate TPE alone: -0.01, -0.17, -0.26. Without any, 6 data sets, copies of the first
draws lead nowhere (0.54, 0.27, 0.06). So there the learner draws the first `STARTUP_TRIALS`: 0.17,
-0.11, -0.44; alone 0.16, -0.03, -0.34. With starting points it draws none of the first ones: from
three points, 8 data sets, 0.02, -0.18, -0.32; with every fourth from the start 0.13, -0.11, -0.29.
Steps half as wide are worse (0.05, -0.11, -0.22).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from carray.search.sampling.storage import DRAWN_AGAIN, FIXED_PARAMS

Anchors = Callable[[], Mapping[int, float]]
"""Numbers of Optuna's trials that the next one may be near, and how often each should be."""

SEEDS = 3  # of the best given point, in a study that can afford them
FEWEST_DRAWS = 5  # that must be left of a study besides its given points and those seeds
UNCHANGED = 0.2  # of the copies: another seed, which tells a good trial from a lucky one
CHANGED = 0.5  # of the numbers of a trial: those that a copy has otherwise
STEP = 0.15  # standard deviation of a change, as a share of the range (its logarithm's, if log)
OTHER_CHOICE = 0.1  # how often a copy has another choice
TRIES = 20  # at a copy that differs: of one number, at an end of its range, three of four don't
STARTUP_TRIALS = 10  # that the other sampler draws, or none of, without or with starting points
GLOBAL_EVERY = 4  # after those, one trial of so many is the other sampler's
BEST = 3  # trials that are copied where nobody knows what helps an ensemble


class LocalSampler(BaseSampler):  # type: ignore[misc]
    """Draws near `anchors`, and later on every `GLOBAL_EVERY`th trial by `learner`.

    First after the points that it was given come further seeds of the best of them: they say how
    far seeds alone differ and what the search brings over its first recipe, and are good members of
    an ensemble (Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation
    using Deep Ensembles", NeurIPS 2017). While nothing has ended it draws near points that run. A
    study that was given no point is the learner's for its first `STARTUP_TRIALS`; another has none
    of the learner's among these, from which it couldn't have learnt much.

    Args:
        learner: who draws every fourth trial.
        seed: of the random numbers.
        anchors: what to copy; None: the best complete trials.
        trials: that the study is to have; few of them leave no room for seeds.
    """

    def __init__(
        self,
        learner: BaseSampler,
        seed: int,
        anchors: Anchors | None = None,
        trials: int | None = None,
    ) -> None:
        self.anchors = anchors
        self.trials = trials
        self._learner = learner
        self._rng = np.random.default_rng(seed)
        self._copied: dict[int, Mapping[str, Any]] = {}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Choose what the trial is a copy of, and whether it is changed."""
        self._learner.before_trial(study, trial)
        if FIXED_PARAMS in trial.system_attrs:
            return
        trials = study.get_trials(deepcopy=False)
        known = [t for t in trials if is_given(t)]
        if not known and trial.number < STARTUP_TRIALS:
            return
        if trial.number < len(known) + self._more_seeds(len(known)):
            self._copy(trial.number, trials, best_given(study, known), 1.0)
        elif trial.number < STARTUP_TRIALS or trial.number % GLOBAL_EVERY != GLOBAL_EVERY - 1:
            weights = dict(self.anchors()) if self.anchors else best_trials(study, trials)
            self._copy(trial.number, trials, weights or running_trials(trials), UNCHANGED)

    def _more_seeds(self, given: int) -> int:
        """Return how many more seeds of the best given point a study of `trials` can afford."""
        has_room = self.trials is None or self.trials >= given + SEEDS - 1 + FEWEST_DRAWS
        return SEEDS - 1 if given and has_room else 0

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return what the learner draws jointly; a copy is drawn number by number."""
        if trial.number in self._copied:
            return {}
        return dict(self._learner.infer_relative_search_space(study, trial))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return what the learner draws jointly."""
        return dict(self._learner.sample_relative(study, trial, search_space))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return what a copy has; what the copied trial lacks, by the learner."""
        copy = self._copied.get(trial.number, {})
        if param_name in copy:
            return copy[param_name]
        return self._learner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Let the learner know of a trial's end."""
        self._copied.pop(trial.number, None)
        self._learner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Take other random numbers in another process."""
        self._rng = np.random.default_rng()
        self._learner.reseed_rng()

    def _copy(
        self,
        number: int,
        trials: Sequence[FrozenTrial],
        weights: Mapping[int, float],
        unchanged: float,
    ) -> None:
        """Have a trial copy one of those weighted, if its parameters are known already.

        `unchanged` is how often it is copied as it is.
        """
        weights = {n: w for n, w in weights.items() if n != number and trials[n].params}
        if not weights:
            return
        shares = np.array(list(weights.values()), np.float64)
        copied = trials[int(self._rng.choice(list(weights), p=shares / shares.sum()))]
        is_seed = self._rng.random() < unchanged
        self._copied[number] = dict(copied.params) if is_seed else self._changed_copy(copied)

    def _changed_copy(self, copied: FrozenTrial) -> dict[str, Any]:
        """Return a trial's parameters, some of them changed."""
        drawn = copied.distributions
        for _ in range(TRIES):
            copy = {name: self._changed(drawn[name], v) for name, v in copied.params.items()}
            if copy != copied.params:
                break
        return copy

    def _changed(self, drawn: BaseDistribution, value: Any) -> Any:
        if isinstance(drawn, CategoricalDistribution):
            is_other = self._rng.random() < OTHER_CHOICE
            return drawn.choices[self._rng.integers(len(drawn.choices))] if is_other else value
        if self._rng.random() >= CHANGED or drawn.single():
            return value
        low, high = drawn.low, drawn.high
        if not drawn.log:
            moved = value + self._rng.normal(0, STEP) * (high - low)
        else:
            moved = value * math.exp(self._rng.normal(0, STEP) * math.log(high / low))
        moved = min(max(moved, low), high)
        return round(moved) if isinstance(drawn, optuna.distributions.IntDistribution) else moved


def best_trials(
    study: optuna.Study, trials: Sequence[FrozenTrial], most: int = BEST
) -> dict[int, float]:
    """Return the best complete trials, all alike."""
    complete = [t for t in trials if t.state is TrialState.COMPLETE]
    sign = 1.0 if study.direction is optuna.study.StudyDirection.MINIMIZE else -1.0
    complete.sort(key=lambda t: sign * t.value)
    return {t.number: 1.0 for t in complete[:most]}


def best_given(study: optuna.Study, given: Sequence[FrozenTrial]) -> dict[int, float]:
    """Return the best given point, or one before it that still runs.

    The most promising are given first, and a small network ends before a better one.
    """
    best = best_trials(study, given, 1)
    running = running_trials(given)
    if running and (not best or min(running) < min(best)):
        return {min(running): 1.0}
    return best or {trial.number: 1.0 for trial in given}


def is_given(trial: FrozenTrial) -> bool:
    """Say whether a trial is a point that its study was given, and no draw that had to wait."""
    return FIXED_PARAMS in trial.system_attrs and DRAWN_AGAIN not in trial.user_attrs


def running_trials(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """Return those that run, all alike."""
    return {t.number: 1.0 for t in trials if t.state is TrialState.RUNNING}
