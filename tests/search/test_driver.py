"""The driver: what goes wrong inside Tune and in threads comes out as it was."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.tune.error import TuneError
from ray.tune.schedulers import FIFOScheduler

from carray.config import TrialConfig
from carray.metrics import VAL_LOG_LOSS
from carray.records import TrialRecord
from carray.search.driver import Driver


def no_space_left(*words: object) -> None:
    raise OSError(28, "No space left on device")


class FullDisk:
    """A ledger that can write nothing."""

    study = SimpleNamespace(metric=VAL_LOG_LOSS)
    ask = trial_folder = staticmethod(no_space_left)

    def to_finish(self) -> list[TrialRecord]:
        return []


class TellingText:
    """Tune, which draws a trial and tells of whatever that raises by its traceback's text."""

    def __init__(self, trainable: Any, tune_config: Any, run_config: Any) -> None:
        self._search = tune_config.search_alg

    def fit(self) -> None:
        try:
            self._search.suggest("1")
        except Exception as error:
            text = str(error)
        raise TuneError(text)


def test_a_full_disk_is_told_as_such_by_tune_and_by_refits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "Tuner", TellingText)
    lanes: Any = SimpleNamespace(num_lanes=1)
    ledger: Any = FullDisk()
    with pytest.raises(OSError, match="No space left on device"):
        Driver(ledger, lanes, tmp_path, no_space_left).search(FIFOScheduler(), None, tmp_path)
    record = TrialRecord(study="s", number=0, config=TrialConfig())
    with pytest.raises(OSError, match="No space left on device"):
        Driver(ledger, lanes, tmp_path, no_space_left).refit([record])
