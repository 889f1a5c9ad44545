"""A thin trial: what Tune is told of an epoch, and what it keeps of a trial that has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Number
from pathlib import Path

import pytest
from ray.tune.experiment import Trial

from carray.config import TrialConfig, build_config
from carray.lanes.messages import LaneOrder
from carray.metrics import VAL_CALIBRATED_LOG_LOSS, VAL_LOG_LOSS
from carray.records import TrialFolder, TrialRecord
from carray.search.scheduling.driver import Driver
from carray.search.scheduling.trainable import EPOCH, FACTS, ROW, STATE, LaneTrainable
from carray.search.scheduling.tune_run import LedgerCallback
from carray.training.epoch_order import EpochOrder
from tests.lanes.fakes import FakeLanes, epoch_row
from tests.search.studies import local_tune
from tests.search.test_ledger import open_ledger

__all__ = ["local_tune"]
CONFIG = build_config({"epochs": 3})
Rows = tuple[dict[str, float], ...]
Begin = Callable[[TrialConfig, Rows], LaneTrainable]


@pytest.fixture
def lanes() -> Iterator[FakeLanes]:
    lanes = FakeLanes()
    lanes.start()
    yield lanes
    lanes.stop(1.0)


@pytest.fixture
def begin(tmp_path: Path, lanes: FakeLanes, local_tune: None) -> Begin:
    """Begin a trial, of which an earlier call has trained some epochs."""

    def begun(config: TrialConfig, rows: Rows) -> LaneTrainable:
        record = TrialRecord(study="s", number=0, config=config, epochs=rows)
        TrialFolder(tmp_path).write_record(record)
        folder = str(tmp_path)
        job = EpochOrder(trial=record.name, folder=folder, data="d", config=config, epoch=1)
        told = {"job": job.model_dump_json(), "mailbox": lanes.mailbox, "metric": VAL_LOG_LOSS}
        return LaneTrainable(config=told)

    return begun


@pytest.fixture
def trial(begin: Begin) -> LaneTrainable:
    """A trial whose first epoch an earlier call has trained."""
    return begin(CONFIG, (epoch_row(CONFIG, 1),))


def test_tune_sees_of_an_epoch_its_objective_alone(trial: LaneTrainable) -> None:
    known, trained, last = trial.step(), trial.step(), trial.step()
    assert known == {EPOCH: 1, VAL_LOG_LOSS: epoch_row(CONFIG, 1)[VAL_LOG_LOSS]}
    assert {name for name, value in trained.items() if isinstance(value, Number)} == {
        EPOCH,
        VAL_LOG_LOSS,
    }
    assert dict(trained[ROW]) == epoch_row(CONFIG, 2)
    assert dict(trained[FACTS])["initialisation"] == "random:0"
    assert last["done"]


def test_a_report_carries_no_configuration(trial: LaneTrainable) -> None:
    assert "config" not in trial.train()


def test_of_epochs_that_are_known_a_lane_is_asked_for_the_last_whose_weights_may_be_lost(
    begin: Begin, lanes: FakeLanes
) -> None:
    known = tuple(epoch_row(CONFIG, epoch) for epoch in (1, 2))
    trial = begin(CONFIG, known)
    told = [trial.step() for _ in range(3)]
    assert lanes.faults.trained() == [(0, 2), (0, 3)]
    assert [FACTS in each for each in told] == [False, False, True], "what is known is told once"


def test_a_paused_trial_frees_its_lane_once_it_is_put_away(
    trial: LaneTrainable, lanes: FakeLanes, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    other = EpochOrder(trial="s/0001", folder=folder, data="d", config=CONFIG, epoch=1)
    trial.step()
    trial.step()
    trial.save_checkpoint("")
    waits = lanes.call(LaneOrder("epoch", other))
    with pytest.raises(TimeoutError):
        waits.result(0.1)
    trial.cleanup()
    assert waits.result(10).outcome is not None


def test_tune_keeps_no_averages_of_an_ended_trial(tmp_path: Path, lanes: FakeLanes) -> None:
    trial = Trial("ThinTrial", stub=True)
    trial.update_last_result({EPOCH: 1, VAL_LOG_LOSS: 0.5, "training_iteration": 1})
    assert trial.metric_analysis
    driver = Driver(open_ledger(tmp_path)[0], lanes, str(tmp_path), str)
    LedgerCallback(driver).on_trial_complete(1, [trial], trial)
    assert not trial.metric_analysis
    assert not trial.metric_n_steps


@pytest.mark.parametrize(
    ("losses", "ending"),
    [((1.0, 2.0, 3.0), "complete"), ((1.0, 2.0, 0.5), None), ((1.0,) * 4, "complete")],
)
def test_a_trial_killed_after_the_epoch_that_ended_it_ends_with_what_it_has(
    begin: Begin, losses: tuple[float, ...], ending: str | None
) -> None:
    """It was to stop after two epochs without a better one, or had run them all."""
    config = build_config({"epochs": 4, "early_stop_patience": 2})
    rows = tuple(epoch_row(config, 1) | {VAL_CALIBRATED_LOG_LOSS: loss} for loss in losses)
    trial = begin(config, rows)
    results = [trial.step() for _ in rows]
    assert [result.get("done", False) for result in results[:-1]] == [False] * (len(rows) - 1)
    assert results[-1].get(STATE) == ending
