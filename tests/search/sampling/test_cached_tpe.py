"""The quick TPE draws what Optuna's own draws, whatever the trials are like."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from carray.search.sampling.samplers import build_sampler
from carray.search.space.space import SearchSpace
from carray.search.space.yaml_reader import parse_space

FLAT = """
version: 1
fixed: {epochs: 3, pretrained: false, backbone: test_resnet}
search:
  optimizer.lr: {loguniform: [1e-4, 1e-1]}
  augment.strength: {uniform: [0.0, 1.0]}
  device_batch_size: {int: [8, 64]}
  optimizer.name: {choice: [adamw, sgd, lamb]}
"""
BLOCKS = """
version: 1
fixed: {epochs: 3, pretrained: false}
search:
  optimizer.lr: {loguniform: [1e-4, 1e-1]}
backbones:
  a: {fixed: {backbone: test_resnet}, search: {dropout: {uniform: [0.0, 0.5]}}}
  b: {fixed: {backbone: test_vit}, search: {optimizer.name: {choice: [adamw, sgd]}}}
"""
OWN = {
    "tpe": {"multivariate": True, "group": True},
    "tpe-univariate": {"multivariate": False, "n_startup_trials": 3},
}


def study_of(sampler: optuna.samplers.BaseSampler, direction: str) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=sampler, direction=direction)


def drawn(study: optuna.Study, space: SearchSpace, trials: int) -> list[dict[str, Any]]:
    """Run trials three at a time; they end out of order, in every way that a trial can."""
    numbers, running, told = np.random.default_rng(1), [], []
    study.enqueue_trial({"optimizer.lr": 0.01})
    while len(told) < trials:
        while len(running) < 3:
            trial = study.ask()
            told.append(space.draw(trial))
            running.append(trial)
        trial = running.pop(int(numbers.integers(3)))
        ending = numbers.integers(10)
        value = round(numbers.random(), 1)  # some are alike
        if ending < 5:
            study.tell(trial, value)
        elif ending < 6:
            study.tell(trial, state=TrialState.FAIL)
        else:
            if ending < 9:
                trial.report(value, step=int(numbers.integers(1, 4)))
            if ending < 7:
                trial.set_constraint("out of memory", 1.0)
            study.tell(trial, state=TrialState.PRUNED)
    return told


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("text", [FLAT, BLOCKS], ids=["flat", "blocks"])
@pytest.mark.parametrize("name", OWN)
def test_the_draws_are_optunas_own(name: str, text: str, direction: str) -> None:
    space = parse_space(text, "space.yaml")
    own = optuna.samplers.TPESampler(seed=3, constant_liar=True, **OWN[name])
    expected = drawn(study_of(own, direction), space, 60)
    assert drawn(study_of(build_sampler(name, 3), direction), space, 60) == expected


@pytest.mark.filterwarnings("ignore")
def test_a_study_that_is_taken_up_again_draws_as_optuna_would() -> None:
    space = parse_space(BLOCKS, "space.yaml")
    begun = study_of(build_sampler("tpe", 3), "minimize")
    drawn(begun, space, 40)
    told = []
    for sampler in (
        optuna.samplers.TPESampler(seed=5, constant_liar=True, **OWN["tpe"]),
        build_sampler("tpe", 5),
    ):
        again = study_of(sampler, "minimize")
        again.add_trials(begun.get_trials())
        told.append(drawn(again, space, 20))
    assert told[0] == told[1]


def test_a_draw_ranks_only_the_trials_that_have_ended_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from carray.search.sampling import cached_tpe

    space = parse_space(FLAT, "space.yaml")
    ranked: list[int] = []
    rank = cached_tpe._rank
    monkeypatch.setattr(cached_tpe, "_rank", lambda t, s: ranked.append(t.number) or rank(t, s))
    drawn(study_of(build_sampler("tpe-univariate", 0), "minimize"), space, 50)
    assert len(ranked) == len(set(ranked))
