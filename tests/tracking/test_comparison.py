"""The view on which a study's trials are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from carray.records import TrialState
from carray.tracking import open_tracker
from carray.tracking.comparison import VIEW_TAG, comparison, write_comparison
from carray.tracking.mlflow_client import store_of
from carray.tracking.tracker import curve_row
from tests.tracking.stores import with_store
from tests.tracking.studies import make_record, make_study

TRIALS = [make_record(number, 2, TrialState.COMPLETE) for number in (0, 1)]


def test_a_study_is_compared_the_best_first_without_refits(tmp_path: Path) -> None:
    study = make_study(with_store(tmp_path)).record().model_copy(update={"metric": "val/top1"})
    view = comparison(study, TRIALS)
    assert view["searchFilter"] == "tags.`carray.kind` = 'search'"
    assert view["orderByKey"] == "metrics.`best/val/top1`"
    assert view["orderByAsc"] is False
    columns = view["selectedColumns"]
    assert columns[0] == "metrics.`best/val/top1`"
    assert columns[-2:] == ["params.`backbone`", "params.`optimizer.lr`"]


def test_parallel_coordinates_have_what_differs_and_the_studys_metric(tmp_path: Path) -> None:
    first, *_ = comparison(make_study(with_store(tmp_path)).record(), TRIALS)["compareRunCharts"]
    assert first["type"] == "PARALLEL"
    assert first["selectedParams"] == ["optimizer.lr"]  # of one backbone all
    assert first["selectedMetrics"] == ["best/val/log_loss"]


def test_the_view_is_kept_with_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    runs = with_store(tmp_path)
    folder = make_study(runs)
    tracker = open_tracker(runs, pytest.fail)
    tracker.study_started(folder.record())
    tracker.close()
    for record in TRIALS:
        folder.trial(record.number).write_record(record)
    with store_of(runs) as client:
        experiment = client.get_experiment_by_name("autumn")
        page = write_comparison(client, experiment.experiment_id, folder)
        tags = client.get_experiment(experiment.experiment_id).tags
    assert page == f"#/experiments/{experiment.experiment_id}/runs?viewStateShareKey=carray"
    assert json.loads(tags[VIEW_TAG])["compareRunCharts"][0]["selectedParams"] == ["optimizer.lr"]


def test_the_metric_that_chooses_epochs_comes_first() -> None:
    record = TRIALS[0]
    config = record.config.model_copy(update={"best_metric": "val/top1"})
    assert next(iter(curve_row(record, 2))) == "best/val/calibrated_log_loss"
    by_top1 = record.model_copy(update={"config": config})
    assert next(iter(curve_row(by_top1, 2))) == "best/val/top1"
