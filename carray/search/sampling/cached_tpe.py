"""Optuna's TPE, which keeps what it has read of the trials that ended.

For each parameter of each trial, Optuna's own sorts all trials anew and translates all their
values. An ended trial doesn't change, so here each is read once. The draws are the same, bit by
bit, and a test says so; what is overridden are private parts of Optuna 5.
"""

from __future__ import annotations

import bisect
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.sampler import (
    _get_infeasible_trial_score,
    _get_pruned_trial_score,
    default_gamma,
)
from optuna.search_space.group_decomposed import _SearchSpaceGroup
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

USED = (TrialState.COMPLETE, TrialState.PRUNED)
Space = dict[str, BaseDistribution]
Floats = npt.NDArray[np.float64]


class CachedTpeSampler(TPESampler):  # type: ignore[misc]
    """`TPESampler` for one study of one objective, with `constant_liar`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(constant_liar=True, **options)
        self._trials = TrialTable()
        if self._group:
            self._group_decomposed_search_space: Any = self._trials

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Draw a parameter by itself."""
        self._trials.read(study)
        if len(self._trials.used) < self._n_startup_trials:
            return super().sample_independent(study, trial, param_name, param_distribution)
        return self._sample(study, trial, {param_name: param_distribution})[param_name]

    def _sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: Space
    ) -> dict[str, Any]:
        self._trials.read(study)
        if not search_space or len(self._trials.used) < self._n_startup_trials:
            return {}
        return self._sample(study, trial, search_space)

    def _sample(self, study: Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        ended = self._trials.table(search_space)
        is_best = self._trials.are_best(default_gamma(len(ended)))
        running = [other for other in self._trials.running if other.number != trial.number]
        params = [self._get_params(other, study) for other in running]
        liars = [_values(each, search_space) for each in params]
        numbers = [*self._trials.numbers[~is_best], *(other.number for other in running)]
        others = np.concatenate([ended[~is_best], np.reshape(liars, (-1, len(search_space)))])
        good = self._estimator(ended[is_best], search_space)
        rest = self._estimator(others[np.argsort(numbers)], search_space)
        samples = good.sample(self._rng.rng, self._n_ei_candidates)
        chosen = self._compare(samples, self._compute_acquisition_func(samples, good, rest))
        return {name: drawn.to_external_repr(chosen[name]) for name, drawn in search_space.items()}

    def _estimator(self, rows: Floats, space: Space) -> Any:
        """Return the density of those (trials, parameters) that have them all."""
        whole = rows[~np.isnan(rows).any(axis=1)]
        observed = dict(zip(space, whole.T, strict=True))
        return self._parzen_estimator_cls(observed, space, self._parzen_estimator_parameters)


class TrialTable:
    """A study's trials as TPE sees them: which have ended, how well, and with which values."""

    def __init__(self) -> None:
        self.used: list[FrozenTrial] = []  # complete and pruned ones, by number
        self.running: list[FrozenTrial] = []
        self._numbers: list[int] = []  # of `used`
        self._ranked: list[tuple[int, float, float, int]] = []  # the best first, its number last
        self._columns: dict[tuple[str, BaseDistribution], list[float]] = {}  # rows as `used`
        self._groups = _SearchSpaceGroup()
        self._open: list[int] = []
        self._num_read = 0

    @property
    def numbers(self) -> npt.NDArray[np.intp]:
        """Return the numbers of `used`, ascending."""
        return np.array(self._numbers, np.intp)

    def read(self, study: Study) -> None:
        """Look again at the trials that hadn't ended."""
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        seen = [trials[number] for number in (*self._open, *range(self._num_read, len(trials)))]
        self._num_read = len(trials)
        self._open = [trial.number for trial in seen if not trial.state.is_finished()]
        self.running = [trial for trial in seen if trial.state == TrialState.RUNNING]
        for trial in (trial for trial in seen if trial.state in USED):
            row = bisect.bisect(self._numbers, trial.number)
            self.used.insert(row, trial)
            self._numbers.insert(row, trial.number)
            bisect.insort(self._ranked, (*_rank(trial, study), trial.number))
            for (name, drawn), column in self._columns.items():
                column.insert(row, *_values(trial.params, {name: drawn}))
            self._groups.add_distributions(trial.distributions)

    def calculate(self, study: Study, use_cache: bool) -> _SearchSpaceGroup:
        """Return which parameters are drawn together, as TPE asks its decomposed search space."""
        self.read(study)
        return self._groups

    def table(self, space: Space) -> Floats:
        """Return values in Optuna's own representation, (used, parameters), NaN where none."""
        for name, drawn in space.items():
            if (name, drawn) not in self._columns:
                rows = [_values(trial.params, {name: drawn}) for trial in self.used]
                self._columns[name, drawn] = [value for row in rows for value in row]
        return np.array([self._columns[key] for key in space.items()], np.float64).T

    def are_best(self, count: int) -> npt.NDArray[np.bool_]:
        """Say which of `used` are the `count` best."""
        return np.isin(self._numbers, [number for *_, number in self._ranked[:count]])


def _values(params: dict[str, Any], space: Space) -> list[float]:
    return [
        drawn.to_internal_repr(params[name]) if name in params else math.nan
        for name, drawn in space.items()
    ]


def _rank(trial: FrozenTrial, study: Study) -> tuple[int, float, float]:
    """Order trials as Optuna does: complete, then pruned, then infeasible ones."""
    if (broken := _get_infeasible_trial_score(trial)) > 0:
        return 2, broken, 0.0
    if trial.state == TrialState.PRUNED:
        return 1, *_get_pruned_trial_score(trial, study)
    return 0, trial.value if study.direction == StudyDirection.MINIMIZE else -trial.value, 0.0
