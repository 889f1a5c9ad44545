"""A study's table fits a terminal and says what to do next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from carray import metrics
from carray.costs import Held
from carray.records import StudyRecord, TrialState
from carray.reports.study import study_json, study_lines, study_table, table_lines
from carray.reports.table import within
from tests.reports.studies import make_study


def test_the_best_trial_comes_first_in_either_direction(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    losses = [row.log_loss for row in study_table(folder)]
    assert losses == sorted(losses)
    study = folder.record().model_copy(update={"metric": "val/top1"})
    study.write(folder.record_file)
    top1s = [row.top1 for row in study_table(folder)]
    assert top1s == sorted(top1s, reverse=True)


def test_lines_fit_100_columns_and_count_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with within(100):
        lines = study_lines(make_study(tmp_path))
    assert max(map(len, lines)) <= 100
    assert lines[0].endswith("complete, 8 pruned, 1 failed, 3 refits, 16:40")
    assert any("1 failed: out of patience" in line for line in lines)
    assert "  carray ensemble --study toycars-quick --top 3 --runs ." in lines
    assert lines[-1] == "  carray ui --runs ."


@pytest.mark.parametrize("metric", metrics.OBJECTIVES)
def test_heads_stand_apart_by_any_metric(tmp_path: Path, metric: str) -> None:
    head, *_ = table_lines(study_table(make_study(tmp_path, trials=1, refits=0)), metric)
    assert {"lr", "best/epochs", "F1"} <= set(head.split())
    assert head.count("*") == 1


def test_a_long_cause_is_told_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_study(tmp_path)
    why = " ".join(f"word{number}" for number in range(40))
    record = folder.trial(0).record().model_copy(update={"state": TrialState.FAILED, "reason": why})
    folder.trial(0).write_record(record)
    with within(100):
        lines = study_lines(folder)
    assert why in " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= 100


def test_a_report_names_all_commands_but_itself(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    named, others = (study_lines(folder, is_report=is_report) for is_report in (False, True))
    assert [line for line in named if "carray report" in line]
    assert others == [line for line in named if "carray report" not in line]


def test_all_commands_look_in_the_folder_that_the_study_is_in(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    spent = {"budget_spent": True, "command": "carray tune cars --runs then --study a"}
    folder.record().model_copy(update=spent).write(folder.record_file)
    lines = study_lines(folder)
    commands = lines[lines.index("next:") + 1 :]
    assert commands[-1].startswith("  carray tune cars --study a --runs ")
    assert all(line.endswith(f" --runs {tmp_path}") for line in commands)


def test_a_huge_loss_stays_in_its_column(tmp_path: Path) -> None:
    folder = make_study(tmp_path, trials=1, refits=0)
    record = folder.trial(0).record()
    rows = tuple({**row, "val/log_loss": 210688055523.55} for row in record.epochs)
    folder.trial(0).write_record(record.model_copy(update={"epochs": rows}))
    assert "2.11e+11" in study_lines(folder)[4].split()


def test_where_there_is_a_price_each_trial_has_its_money(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    lane = Held(gpus=2.0, cpus=8.0, hourly=7.2, currency="eur")
    for files, record in folder.trials():
        measured = {"epoch_seconds": 1000.0, "energy_joules": 1e5}  # of two GPUs, by one rank
        rows = tuple({**row, **measured} for row in record.epochs)
        files.write_record(record.model_copy(update={"epochs": rows, "held": lane}))
    head, ruler, best, *_ = study_lines(folder)[2:]
    assert head.endswith("time      eur      kWh")
    assert best.endswith("5:00:00   36.000    0.500")  # 18 epochs
    assert len(head) == len(ruler) == len(best)
    assert study_lines(folder, wide=False)[2].endswith("time      eur")
    (row, *_) = study_json(folder)["trials"]
    assert row["cost"] == {
        "gpu_seconds": 36000.0,
        "cpu_seconds": 144000.0,
        "energy_kwh": 0.5,
        "money": 36.0,
        "currency": "eur",
    }


def test_a_trial_without_a_cost_hides_nobody_elses(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    lane = Held(hourly=7.2, currency="eur")
    first = study_json(folder)["trials"][0]["number"]
    for files, record in folder.trials():
        if record.number != first:
            files.write_record(record.model_copy(update={"held": lane}))
    assert study_lines(folder)[2].endswith("time      eur")


def test_a_study_without_trials_has_a_table_too(tmp_path: Path) -> None:
    folder = make_study(tmp_path, trials=0, refits=0)
    assert "no trial has been recorded yet" in study_lines(folder)


def test_json_holds_every_trial_and_no_nan(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    record = folder.trial(0).record().model_copy(update={"epochs": ()})
    folder.trial(0).write_record(record)
    told = json.loads(json.dumps(study_json(folder), allow_nan=False))
    assert len(told["trials"]) == 21
    assert told["trials"][-1]["log_loss"] is None
    assert StudyRecord.model_validate(told["study"]) == folder.record()
