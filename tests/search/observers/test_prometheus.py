from pathlib import Path

import pytest

from carray import metrics
from carray.config import TrialConfig
from carray.records import StudyRecord, TrialFolder, TrialRecord, TrialState
from carray.search.observers import prometheus
from carray.search.observers.prometheus import StudyGauges, cause_of
from tests.search.gauges import Values, shown

__all__ = ["shown"]


@pytest.mark.parametrize(
    ("state", "reason", "cause"),
    [
        (TrialState.INFEASIBLE, "CUDA out of memory at batch 64", "out_of_memory"),
        (TrialState.FAILED, "loss is nan at step=3", "non_finite_loss"),
        (TrialState.FAILED, "its epoch ended the worker group 2 times: loss", "lane_died"),
        (TrialState.FAILED, "the weights don't fit the backbone", "weights"),
        (TrialState.FAILED, "KeyError: 'x'", "error"),
        (TrialState.FAILED, "", "error"),
    ],
)
def test_a_failure_has_one_of_a_few_causes(state: TrialState, reason: str, cause: str) -> None:
    record = TrialRecord(study="s", number=0, config=TrialConfig(), state=state, reason=reason)
    assert cause_of(record) == cause


def test_a_study_of_any_letters_has_gauges() -> None:
    """These are Ray's own: they refuse letters beyond ASCII as soon as a value is set."""
    StudyGauges(StudyRecord(name="photographs-소나타 ß"))
    assert metrics.ascii_name("photographs-ß 100%") == "photographs-%C3%9F 100%"


def trial(number: int, speed: float, state: TrialState = TrialState.RUNNING) -> TrialRecord:
    row = {metrics.VAL_LOG_LOSS: 1.0 / speed, metrics.EPOCH_SECONDS: 10.0}
    row |= {metrics.IMAGES_PER_SECOND: speed, metrics.DATA_WAIT: speed / 1000}
    return TrialRecord(study="s", number=number, config=TrialConfig(), state=state, epochs=(row,))


def test_the_pace_is_that_of_the_trials_at_work(
    shown: Values,
) -> None:
    now = [0.0]
    gauges = StudyGauges(StudyRecord(name="s"), clock=lambda: now[0])
    gauges.epoch_ended(trial(0, 100.0))
    now[0] = 25.0
    gauges.epoch_ended(trial(1, 200.0))
    assert shown[prometheus.IMAGES_PER_SECOND][()] == 300.0
    assert shown[prometheus.DATA_WAIT_SHARE][()] == pytest.approx(0.15)
    now[0] = 31.0  # silent for more than three of its epochs
    gauges.epoch_ended(trial(1, 210.0))
    assert shown[prometheus.IMAGES_PER_SECOND][()] == 210.0
    gauges.study_ended(StudyRecord(name="s"))
    assert shown[prometheus.IMAGES_PER_SECOND][()] == 0.0


def test_trials_are_counted_by_state_those_of_earlier_calls_as_well(
    shown: Values,
) -> None:
    gauges = StudyGauges(StudyRecord(name="s"), [trial(0, 100.0, TrialState.COMPLETE)])
    gauges.trial_started(trial(1, 100.0))
    gauges.epoch_ended(trial(1, 100.0))
    assert shown[prometheus.TRIALS][("running",)] == 1
    gauges.trial_ended(trial(1, 100.0, TrialState.COMPLETE), TrialFolder(Path("anywhere")))
    assert shown[prometheus.TRIALS][("running",)] == 0
    assert shown[prometheus.TRIALS][("complete",)] == 2
