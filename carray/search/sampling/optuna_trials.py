"""Trials of Optuna's study: drawn, and told how they ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import optuna

from carray.config import TrialConfig
from carray.errors import ConfigError
from carray.records import StudyRecord, TrialRecord, TrialState
from carray.search.space.space import SearchSpace

OUT_OF_MEMORY = "out of memory"  # the name of Optuna's constraint
BAD_DRAWS = 20  # draws in a row that resolve to no valid config before the study gives up


def draw_valid(
    study: optuna.Study, space: SearchSpace, more: Mapping[str, Any]
) -> tuple[optuna.Trial, dict[str, Any], TrialConfig]:
    """Draw until the values make a valid config with `more`; those that don't fail in Optuna.

    Raises:
        ConfigError: `BAD_DRAWS` in a row made none.
    """
    for _ in range(BAD_DRAWS):
        trial = study.ask()
        params = space.draw(trial)
        try:
            return trial, params, space.resolve(params, more)
        except ConfigError as error:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            last = error
    raise ConfigError(f"{BAD_DRAWS} draws in a row gave no valid config: {last}")


def tell_end(optuna_study: optuna.Study, record: TrialRecord, study: StudyRecord) -> None:
    """Tell Optuna what the end of a trial means, unless it knows."""
    states = optuna.trial.TrialState
    number = record.sampler_number
    assert number is not None
    storage = optuna_study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(optuna_study._study_id, number)
    if storage.get_trial(trial_id).state.is_finished():
        return  # told by a process that was killed before its record said so
    best = record.best(study.metric)
    costs = [record.network_cost[name] for name in study.objectives[1:]]
    # what was stopped has no value of its own in Optuna where there are several objectives
    was_stopped = record.state is TrialState.PRUNED and costs and math.isfinite(best)
    if record.state is TrialState.COMPLETE or was_stopped:
        optuna_study.tell(number, [best, *costs])
        return
    if record.state is TrialState.FAILED:
        optuna_study.tell(number, state=states.FAIL)
        return
    if record.state is TrialState.INFEASIBLE:
        # Told as FAIL, TPE forgets it and proposes the same point again.
        optuna.Trial(optuna_study, trial_id).set_constraint(OUT_OF_MEMORY, 1.0)
    if math.isfinite(best) and not costs:
        # An `optuna.Trial` would do, but making one draws from the sampler again.
        storage.set_trial_intermediate_value(trial_id, len(record.epochs), best)
    optuna_study.tell(number, state=states.PRUNED)
