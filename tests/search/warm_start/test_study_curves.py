"""Recorded curves: what is read, and how a stopped one is continued."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from carray.errors import RecordError
from carray.records import TrialState
from carray.search.warm_start.study_curves import extrapolate_stopped, read_recorded
from tests.search_benchmark.studies import hill_losses, past_study


def test_a_stopped_curve_goes_on_as_the_full_ones_did() -> None:
    full = [np.array([2.0, 1.0, 0.5]), np.array([4.0, 2.0, 1.0])]
    stopped = np.array([3.0, 1.8])
    curves = extrapolate_stopped([*full, stopped], [True, True, False], "val/log_loss")
    assert curves[2].tolist() == pytest.approx([3.0, 1.8, 0.9])


def test_a_share_goes_on_by_what_it_lacks() -> None:
    full, stopped = np.array([0.5, 0.8]), np.array([0.2])
    curves = extrapolate_stopped([full, stopped], [True, False], "val/top1")
    assert curves[1].tolist() == pytest.approx([0.2, 1 - 0.8 * 0.4])


def test_a_trial_that_ended_early_by_itself_stays_where_it_was() -> None:
    curves = extrapolate_stopped(
        [np.array([2.0, 1.0, 0.9]), np.array([2.0, 1.5])], [True] * 2, "val/top1"
    )
    assert curves[1].tolist() == [2.0, 1.5, 1.5]


def test_continued_curves_come_near_to_what_a_full_training_gives(tmp_path: Path) -> None:
    recorded = read_recorded(past_study(tmp_path, trials=30))
    assert 0 < recorded.full.sum() < 30
    truth = [hill_losses(-2.0, point["optimizer.lr"], 9)[-1] for point in recorded.points]
    ranks = [np.argsort(np.argsort(values)) for values in (truth, recorded.losses)]
    assert np.corrcoef(*ranks)[0, 1] > 0.95
    assert recorded.curves.shape == (30, 9)


def test_failed_trials_and_refits_do_not_count(tmp_path: Path) -> None:
    folder = past_study(tmp_path, trials=12)
    for number, change in ((0, {"state": TrialState.FAILED}), (1, {"kind": "refit"})):
        place = folder.trial(number)
        place.write_record(place.record().model_copy(update=change))
    assert len(read_recorded(folder).points) == 10


def test_a_study_without_a_full_trial_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no trial that was trained to its end"):
        read_recorded(past_study(tmp_path, stop_above=0.0))


def test_single_trials_are_no_search_to_learn_from(tmp_path: Path) -> None:
    folder = past_study(tmp_path, trials=10)
    folder.record().model_copy(update={"kind": "single"}).write(folder.record_file)
    with pytest.raises(RecordError, match="collects single trials"):
        read_recorded(folder)
