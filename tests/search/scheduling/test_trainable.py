"""A thin trial: what Tune is told of an epoch, and what it keeps of a trial that has ended."""

from __future__ import annotations

from numbers import Number
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial

from carray.config import build_config
from carray.lanes.messages import Answer
from carray.metrics import EPOCH_METRICS, VAL_LOG_LOSS
from carray.records import TrialFolder, TrialRecord
from carray.search.scheduling import trainable
from carray.search.scheduling.driver import LedgerCallback
from carray.search.scheduling.trainable import EPOCH, FACTS, ROW, STATE, LaneTrainable
from carray.training.epoch_order import EpochOrder, EpochOutcome

CONFIG = build_config({"epochs": 3})


def row(epoch: int) -> dict[str, float]:
    return dict.fromkeys(EPOCH_METRICS, 1.0 / epoch)


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaneTrainable:
    """A trial whose first epoch an earlier call has trained; its lane answers at once."""
    record = TrialRecord(study="s", number=0, config=CONFIG, epochs=(row(1),))
    TrialFolder(tmp_path).write_record(record)

    def answer(order: Any) -> Answer:
        outcome = EpochOutcome(row(order.job.epoch), True, "", 1, "random:0", None)
        return Answer(outcome=outcome, lane=0)

    monkeypatch.setattr(trainable.ray, "get", lambda value: value)
    job = EpochOrder(trial=record.name, folder=str(tmp_path), data="d", config=CONFIG, epoch=1)
    call = SimpleNamespace(remote=answer)
    mailbox = SimpleNamespace(call=call)
    config = {"job": job.model_dump_json(), "mailbox": mailbox, "metric": VAL_LOG_LOSS}
    return LaneTrainable(config=config)


def test_tune_sees_of_an_epoch_its_objective_alone(trial: LaneTrainable) -> None:
    known, trained, last = trial.step(), trial.step(), trial.step()
    assert known == {EPOCH: 1, VAL_LOG_LOSS: 1.0}
    assert {name for name, value in trained.items() if isinstance(value, Number)} == {
        EPOCH,
        VAL_LOG_LOSS,
    }
    assert dict(trained[ROW]) == row(2)
    assert dict(trained[FACTS])["initialisation"] == "random:0"
    assert last["done"]


def test_a_report_carries_no_configuration(trial: LaneTrainable) -> None:
    assert "config" not in trial.train()


def test_tune_keeps_no_averages_of_an_ended_trial() -> None:
    trial = Trial("ThinTrial", stub=True)
    trial.update_last_result({EPOCH: 1, VAL_LOG_LOSS: 0.5, "training_iteration": 1})
    assert trial.metric_analysis
    LedgerCallback(SimpleNamespace()).on_trial_complete(1, [trial], trial)  # type: ignore[arg-type]
    assert not trial.metric_analysis
    assert not trial.metric_n_steps


@pytest.mark.parametrize(
    ("losses", "ending"),
    [((1.0, 2.0, 3.0), "complete"), ((1.0, 2.0, 0.5), None), ((1.0,) * 4, "complete")],
)
def test_a_trial_killed_after_the_epoch_that_ended_it_ends_with_what_it_has(
    trial: LaneTrainable, losses: tuple[float, ...], ending: str | None
) -> None:
    """It was to stop after two epochs without a better one, or had run them all."""
    config = build_config({"epochs": 4, "early_stop_patience": 2})
    rows = tuple(row(1) | {VAL_LOG_LOSS: loss} for loss in losses)
    record = TrialRecord(study="s", number=0, config=config, epochs=rows)
    TrialFolder(Path(trial._job.folder)).write_record(record)
    job = trial._job.model_copy(update={"config": config})
    trial.setup({"mailbox": None, "metric": VAL_LOG_LOSS, "job": job.model_dump_json()})
    results = [trial.step() for _ in rows]
    assert [result.get("done", False) for result in results[:-1]] == [False] * (len(rows) - 1)
    assert results[-1].get(STATE) == ending
