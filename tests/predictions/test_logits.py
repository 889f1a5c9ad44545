"""What is said where a trial has no logits on a split: why, and what helps."""

from pathlib import Path

import numpy as np
import pytest

from carray.config import build_config
from carray.errors import RecordError
from carray.metrics import VAL_LOG_LOSS
from carray.predictions.logits import read_logits
from carray.records import TrialFolder, TrialRecord, TrialState


@pytest.mark.parametrize(
    ("state", "epochs", "said"),
    [
        (TrialState.RUNNING, 0, r"no epoch to judge yet \(running\); wait"),
        (TrialState.FAILED, 0, r"before its first epoch was judged \(failed\); name another"),
        (TrialState.COMPLETE, 1, r"logits.npz was taken away; put it back"),
    ],
)
def test_a_trial_without_logits_says_what_helps(
    tmp_path: Path, state: TrialState, epochs: int, said: str
) -> None:
    trial = TrialFolder(tmp_path)
    record = TrialRecord.begin("s", 1, build_config({}), "hash")
    rows = ({VAL_LOG_LOSS: 1.0},) * epochs
    trial.write_record(record.model_copy(update={"state": state, "epochs": rows}))
    with pytest.raises(RecordError, match=f"has no logits on 'val': .*{said}"):
        read_logits(trial, "s/0001", "val", 2)


def test_a_split_that_the_data_lack_is_told_from_a_file_that_is_broken(tmp_path: Path) -> None:
    trial = TrialFolder(tmp_path)
    trial.write_logits({"val": np.zeros((2, 2)), "test": np.zeros((2, 2))})
    with pytest.raises(RecordError, match=r"no logits on 'blend': .* it left some on val and test"):
        read_logits(trial, "s/0001", "blend", 2)
    trial.logits_file.write_bytes(b"PK cut short")
    with pytest.raises(RecordError, match=r"can't be read \(.*\): move it away$"):
        read_logits(trial, "s/0001", "val", 2)
