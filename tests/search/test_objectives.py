"""Searches for several objectives: what is told, kept, shown and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest

from carray.errors import ConfigError, RecordError
from carray.predictions.network_costs import NetworkCosts, front_rows
from carray.records import StudyFolder, StudyRecord, TrialFolder, TrialRecord, TrialState
from carray.reports.study import study_json, study_lines
from carray.search.ledger import Ledger
from carray.search.run import run_study
from carray.search.sampling.samplers import build_sampler
from carray.search.sampling.storage import open_optuna_study
from carray.search.space.yaml_reader import parse_space
from carray.tracking.comparison import comparison
from tests.opened import OPENED, stored_trials
from tests.search.stores import make_optuna_file
from tests.search.studies import (
    FIXED,
    SPACE,
    Listener,
    LocalCluster,
    check_left,
    local,
    request,
)

__all__ = ["local"]
pytestmark = pytest.mark.filterwarnings("ignore")
OBJECTIVES = ("val/log_loss", "latency", "size")
TWO_SIZES = f"""
version: 1
metric: val/top1
fixed: {FIXED.replace("image_size: 32, ", "")}
search:
  image_size: {{choice: [32, 64]}}
"""


def test_a_study_of_several_objectives_is_searched_resumed_and_reported(
    toy_data: Path, tmp_path: Path, local: LocalCluster
) -> None:
    asked = {"objectives": ("val/log_loss", "latency"), "scheduler": "asha"}
    run_study(request(toy_data, tmp_path, TWO_SIZES, trials=2, **asked), Listener())
    folder = run_study(
        request(toy_data, tmp_path, TWO_SIZES, trials=3, scheduler="asha"), Listener()
    )
    study, records = folder.record(), folder.records()
    assert (study.objectives, study.metric) == (asked["objectives"], "val/log_loss")
    assert (study.sampler, len(records)) == ("tpe", 3)
    check_left(folder)
    costs = NetworkCosts.of(folder)
    assert sorted(one.network["image_size"] for one in costs.networks) == [32, 64]
    told = {trial.number: trial.values for trial in stored_trials(folder)}
    for record in records:
        cost = costs.find(record.config)
        assert cost and record.network_cost == {"latency": cost.milliseconds}
        assert told[record.sampler_number] == [record.best("val/log_loss"), cost.milliseconds]
    assert json.loads(folder.front_file.read_text()) == front_rows(folder)
    assert study_json(folder)["front"] == front_rows(folder)
    assert any(line.startswith("the front: ") for line in study_lines(folder))
    view = comparison(study, records)
    assert view["compareRunCharts"][0]["selectedMetrics"][-1] == "network/latency"
    with pytest.raises(RecordError, match="begun with val/log_loss, latency"):
        run_study(request(toy_data, tmp_path, TWO_SIZES, objectives=OBJECTIVES), Listener())


def open_ledger(folder: Path, sampler: str) -> Ledger:
    study = StudyRecord(name="s", trials=40, max_epochs=3, objectives=OBJECTIVES)
    files = StudyFolder(folder / "studies" / "s")
    files.path.mkdir(parents=True)
    study.write(files.record_file)
    storage, ways = make_optuna_file(files.optuna_file), ["minimize"] * 3
    opened = open_optuna_study("s", ways, storage, build_sampler(sampler, 0))
    space = parse_space(SPACE.replace("start:\n  - {optimizer.lr: 5e-3}\n", ""), "space.yaml")
    return Ledger(
        files,
        study,
        space,
        OPENED.enter_context(opened),
        network_cost=lambda config: {"latency": 1e3 * config.optimizer.lr, "size": 8.0},
    )


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp"])
def test_every_end_of_a_trial_can_be_told_and_learned_from(tmp_path: Path, sampler: str) -> None:
    ledger = open_ledger(tmp_path, sampler)
    ends = [TrialState.COMPLETE, TrialState.PRUNED, *TrialState][:7]
    for number in range(28):
        record = ledger.ask()
        assert record is not None
        ledger.report(number, 1, {"val/log_loss": 1.0 / (1 + number)}, {})
        state = ends[number % len(ends)]
        ledger.end(number, TrialState.COMPLETE if state is TrialState.RUNNING else state)
    told = stored_trials(ledger.folder)
    assert told[0].values == [1.0, ledger.record(0).network_cost["latency"], 8.0]
    assert told[1].state is optuna.trial.TrialState.COMPLETE  # stopped, with its best epoch
    assert {t.values is None for t in told if t.state.name in ("PRUNED", "FAIL")} == {True}


def test_the_front_holds_what_none_beats_in_all(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "studies" / "s")
    StudyRecord(name="s", objectives=("val/top1", "latency"), metric="val/top1").write(
        folder.record_file
    )
    values = [(0.9, 9.0), (0.9, 5.0), (0.5, 1.0), (0.4, 2.0), (0.95, 20.0), (0.9, 5.0)]
    for number, (top1, latency) in enumerate(values):
        write_trial(folder.trial(number), number, top1, latency)
    write_trial(folder.trial(6), 6, 0.99, 1.0, state=TrialState.COLLAPSED)
    assert [row["trial"] for row in front_rows(folder)] == ["s/0002", "s/0001", "s/0004"]


def write_trial(
    files: TrialFolder, number: int, top1: float, latency: float, **fields: Any
) -> None:
    from carray.config import build_config

    record = TrialRecord.begin(
        "s",
        number,
        build_config({"best_metric": "val/top1"}),
        "m",
        network_cost={"latency": latency},
    )
    ended = {"state": TrialState.COMPLETE, "epochs": ({"val/top1": top1},), **fields}
    files.write_record(record.model_copy(update=ended))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": ("latency", "val/top1")}, "'latency' must be one of val/log_loss"),
        ({"objectives": ("val/top1", "latencie")}, "must be one of latency, size; did you mean"),
        ({"objectives": ("val/top1",)}, "must be a metric and one or more costs"),
        ({"sampler": "tpe-local"}, "--sampler tpe-local goes by one number"),
        ({"scheduler": "hyperband"}, "--scheduler hyperband goes by one number"),
        ({"goal": "single"}, "--goal single goes by one number"),
        ({"stop_when_gain_below": 0.1}, "--stop-when-gain-below goes by one number"),
    ],
)
def test_what_several_objectives_cannot_go_with_is_refused(
    toy_data: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    asked = request(toy_data, tmp_path, **{"objectives": ("val/top1", "latency"), **options})
    with pytest.raises(ConfigError, match=message):
        run_study(asked)
