import pytest

from carray.config import TrialConfig
from carray.records import TrialRecord, TrialState
from carray.search.exports import cause_of


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
