"""The simulated study: it must tell samplers and schedulers what a real study tells them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest

from carray.metrics import LOG_LOSSES
from carray.records import StudyFolder, StudyRecord, TrialState
from carray.search.ledger import Ledger
from carray.search.sampling.samplers import build_sampler
from carray.search.sampling.storage import open_optuna_study
from carray.search.space.yaml_reader import parse_space
from carray.search_benchmark.methods import Method, methods_for
from carray.search_benchmark.simulate import HYPERBAND_AT_ONCE, CurveCache, SimulatedStudy
from tests.opened import OPENED
from tests.search_benchmark.studies import EPOCHS, SPACE, Hill

HILL = Hill(-2.0)
BUDGET = 12 * EPOCHS
COMPLETE, PRUNED = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED


def simulated(method: Method, budget: int = BUDGET, **options: object) -> SimulatedStudy:
    study = SimulatedStudy(HILL, method, 0, budget_epochs=budget, **options)  # type: ignore[arg-type]
    study.run()
    return study


@pytest.mark.parametrize("method", methods_for(EPOCHS, with_starts=False), ids=lambda m: m.name)
def test_every_method_spends_its_budget_and_its_best_only_falls(method: Method) -> None:
    best = SimulatedStudy(HILL, method, 0, budget_epochs=BUDGET).run()
    assert best.shape == (BUDGET,)
    assert (np.diff(best) <= 0).all()
    assert best[-1] < best[0]


def test_without_stopping_every_trial_is_trained_to_its_end() -> None:
    told = simulated(Method("random", "none"), lanes=1).optuna_trials
    ended = [trial for trial in told if trial.state.is_finished()]
    assert len(ended) == 12 and {trial.state for trial in ended} == {COMPLETE}


@pytest.mark.parametrize("scheduler", ["asha", "median", "hyperband"])
def test_schedulers_stop_the_worse_trials(scheduler: str) -> None:
    told = simulated(Method("random", scheduler), 150 * EPOCHS).optuna_trials
    ended = [trial for trial in told if trial.state.is_finished()]
    full = [t.value for t in ended if t.state == COMPLETE]
    stopped = [
        HILL.curves([t.params])[0].min() for t in ended if t.state == PRUNED
    ]  # what they would have come to
    assert len(stopped) > 10 and len(full) > 3
    assert np.median(stopped) > np.median(full)


def test_asha_stops_only_at_its_rungs() -> None:
    told = simulated(Method("random", "asha", 3, 2), 60 * EPOCHS).optuna_trials
    steps = {max(t.intermediate_values) for t in told if t.state == PRUNED}
    assert steps == {2, 4, 8}  # each twice as far as the last


def test_optuna_is_told_what_the_ledger_tells_it(tmp_path: Path) -> None:
    simulation = simulated(Method("random", "asha"), lanes=1)
    told = [t for t in simulation.optuna_trials if t.state.is_finished()]
    ledger = open_ledger(tmp_path, len(told))
    for trial in told:
        record = ledger.ask()
        assert record is not None
        stopped = trial.state == PRUNED
        epochs = max(trial.intermediate_values) if stopped else EPOCHS
        for epoch, loss in enumerate(HILL.curves([record.params])[0][:epochs], start=1):
            ledger.report(record.number, epoch, dict.fromkeys(LOG_LOSSES, float(loss)), {})
        ledger.end(record.number, TrialState.PRUNED if stopped else TrialState.COMPLETE)
    for theirs, ours in zip(ledger._optuna.trials, told, strict=True):
        assert (theirs.state, theirs.value, theirs.params, theirs.intermediate_values) == (
            ours.state,
            ours.value,
            ours.params,
            ours.intermediate_values,
        )


def open_ledger(folder: Path, trials: int) -> Ledger:
    study = StudyRecord(name="s", trials=trials, manifest_hash="m", max_epochs=EPOCHS)
    files = StudyFolder(folder / "studies" / "s")
    files.path.mkdir(parents=True)
    sampler = build_sampler("random", 0)
    storage = f"sqlite:///{files.optuna_file}"
    optuna_study = OPENED.enter_context(open_optuna_study("s", ["minimize"], storage, sampler))
    return Ledger(files, study, parse_space(SPACE, "space.yaml"), optuna_study)


def test_starting_points_are_drawn_first() -> None:
    point = {"optimizer.lr": 0.01, "dropout": 0.1}
    told = simulated(Method("tpe", "none", starts=True), starts=[point]).optuna_trials
    assert told[0].params == point
    assert told[1].params != point


def test_lanes_train_side_by_side_and_a_seed_repeats_itself() -> None:
    one = SimulatedStudy(HILL, Method("random", "none"), 3, budget_epochs=BUDGET, lanes=4)
    other = SimulatedStudy(HILL, Method("random", "none"), 3, budget_epochs=BUDGET, lanes=4)
    assert one.run().tolist() == other.run().tolist()
    serial = SimulatedStudy(HILL, Method("random", "none"), 3, budget_epochs=BUDGET, lanes=1)
    serial.run()
    assert serial.seen[:EPOCHS] == HILL.curves([serial.optuna_trials[0].params])[0].tolist()
    assert one.seen[:EPOCHS] != serial.seen[:EPOCHS]


def test_hyperband_has_as_many_open_as_a_real_study() -> None:
    from carray.search.scheduling.driver import MAX_PAUSED_TRIALS

    assert HYPERBAND_AT_ONCE == MAX_PAUSED_TRIALS


def test_a_curve_is_asked_for_once() -> None:
    class Counting(Hill):
        asked = 0

        def curves(self, drawn):  # type: ignore[no-untyped-def]
            Counting.asked += 1
            return super().curves(drawn)

    cache = CurveCache(Counting(-2.0))
    first = cache.curve({"optimizer.lr": 0.01, "dropout": 0.2})
    assert cache.curve({"dropout": 0.2, "optimizer.lr": 0.01}) is first
    assert Counting.asked == 1


def test_remembered_means_stop_the_same_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.tune.schedulers import MedianStoppingRule

    from carray.search.scheduling.schedulers import Median

    remembered = simulated(Method("random", "median"), 60 * EPOCHS)
    monkeypatch.setattr(Median, "_running_mean", MedianStoppingRule._running_mean)
    anew = simulated(Method("random", "median"), 60 * EPOCHS)
    assert remembered.seen == anew.seen
