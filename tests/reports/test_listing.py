"""What there is, in lines of at most 80 columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from carray.api import load_study
from carray.cli import main
from carray.errors import RecordError
from carray.files import claimed
from carray.inference.card import Card, MemberEntry
from carray.records import TrialState
from carray.reports.hints import shown_path
from carray.reports.listing import (
    find_shown,
    leaderboard,
    leaderboard_lines,
    list_all,
    list_lines,
    model_lines,
    shown_lines,
    status_lines,
)
from carray.reports.readable import ReadableStudy
from carray.reports.study import study_json, study_table
from carray.reports.table import within
from carray.runs_folder import RunsFolder
from tests.reports.studies import make_study, show_lines


def test_every_list_fits_80_columns(tmp_path: Path) -> None:
    folder, runs = make_study(tmp_path), RunsFolder(tmp_path)
    name = folder.path.name
    trial = study_table(folder)[0].trial
    with within(80):
        found = (
            list_lines(runs),
            status_lines(folder),
            show_lines(runs, trial),
            show_lines(runs, name)[:14],
            leaderboard_lines(folder, 5),
        )
    for lines in found:
        own = [line.partition(" --runs ")[0] for line in lines]  # a path is as long as it is
        assert own
        assert max(map(len, own)) <= 80, lines


def test_the_best_and_the_metric_of_a_study_stand_apart(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    metric = "val/calibrated_log_loss"
    folder.record().model_copy(update={"metric": metric}).write(folder.record_file)
    assert " calibrated log-loss " in list_lines(RunsFolder(tmp_path))[1]


def test_a_study_whose_budget_is_spent_is_not_called_complete(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    folder.record().model_copy(update={"budget_spent": True}).write(folder.record_file)
    row = list_lines(RunsFolder.at(tmp_path))[1]
    assert "budget spent" in row and "complete" not in row
    assert list_all(RunsFolder.at(tmp_path))["studies"][0]["state"] == "complete"


def test_a_models_members_bear_their_numbers_however_long_the_studys_name(tmp_path: Path) -> None:
    long = "nineteen-plus-Audi_R8_Coupe_2012"
    entries = tuple(
        MemberEntry(folder=f"{n}", trial=f"{long}/{n:04d}", backbone="a", weight=0.5, sha256="")
        for n in range(2)
    )
    card = Card(
        what="two nets",
        name="m",
        kind="ensemble",
        study=long,
        classes=("a",),
        members=entries,
        rule="soft vote",
        preprocessing="squash",
    )
    card.write(tmp_path / "m" / "card.json")
    assert [line.split()[0] for line in model_lines(tmp_path / "m")[4:6]] == ["0000", "0001"]


def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    assert "`carray demo`" in list_lines(RunsFolder(tmp_path))[0]


def test_a_broken_record_hides_no_other_and_is_named_with_its_cure(tmp_path: Path) -> None:
    folder, runs = make_study(tmp_path), RunsFolder(tmp_path)
    whole = list_all(runs)["studies"]
    folder.trial(2).record_file.write_text('{"a": 1')
    (tmp_path / "studies" / "empty").mkdir()
    (tmp_path / "studies" / "empty" / "study.json").touch()
    (tmp_path / "models" / "old").mkdir(parents=True)
    (tmp_path / "models" / "old" / "card.json").touch()
    found = list_all(runs)
    assert found["studies"] == [{**whole[0], "trials": whole[0]["trials"] - 1}]
    names = ["empty", "toycars-quick/0002", "old"]
    assert [each.name for each in found["unreadable"]] == names
    assert sum("move its folder away" in line for line in list_lines(runs)) == 2
    own = (status_lines(folder), show_lines(runs, "toycars-quick"), leaderboard_lines(folder, 5))
    for lines in own:
        assert sum("note: toycars-quick/0002 is left out: " in line for line in lines) == 1
    assert len(leaderboard(folder)) == len(study_table(ReadableStudy.of(folder)))
    assert [each["name"] for each in study_json(folder)["unreadable"]] == names[1:2]
    with pytest.raises(RecordError, match=r"no model 'toycars-quik'.*did you mean 'toycars-quick'"):
        find_shown(runs, "toycars-quik")


def test_a_name_that_is_nothing_is_refused_with_the_nearest(tmp_path: Path) -> None:
    make_study(tmp_path)
    with pytest.raises(RecordError, match=r"did you mean 'toycars-quick'"):
        show_lines(RunsFolder(tmp_path), "toycars-quik")


def test_a_name_of_the_hub_is_a_backbone_and_no_trial(tmp_path: Path) -> None:
    lines = show_lines(RunsFolder(tmp_path), "hf-hub:timm/test_resnet.r160_in1k", 32)
    assert "test_resnet" in lines[0]


def test_what_a_name_is_of_is_shown_as_json_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = make_study(tmp_path).path.name
    shown = {}
    for each in (name, f"{name}/", f"{name}/0000", "test_resnet"):
        with pytest.raises(SystemExit, match="0"):
            main(["show", each, "--runs", str(tmp_path), "--json"])
        shown[each] = json.loads(capsys.readouterr().out)
    assert shown[name]["study"]["name"] == name
    assert shown[f"{name}/"]["study"] == shown[name]["study"]
    assert shown[f"{name}/0000"]["number"] == 0
    assert shown["test_resnet"]["layers"]


def test_a_leaderboard_is_in_the_order_of_the_metric_with_what_was_drawn(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    frame = leaderboard(folder)
    assert frame["val/log_loss"].is_monotonic_increasing
    assert "optimizer.lr" in frame.columns
    study = load_study(folder.path.name, runs=tmp_path)
    assert len(study.leaderboard()) == len(frame)
    assert "<table" in study._repr_html_()


def test_a_study_that_nobody_runs_is_interrupted_whatever_its_record_says(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    record = folder.record().model_copy(update={"state": "running", "ended_at": None})
    record.write(folder.record_file)
    trial = folder.trial(0).record().model_copy(update={"state": TrialState.RUNNING})
    folder.trial(0).write_record(trial)
    assert "is interrupted" in status_lines(folder)[0]
    assert "running" not in {row.state for row in study_table(folder)}
    with folder.locked():
        assert "is running" in status_lines(folder)[0]
        assert "running" in {row.state for row in study_table(folder)}


def test_a_training_that_was_killed_is_interrupted_and_another_of_its_study_runs(
    tmp_path: Path,
) -> None:
    """Each holds a lock of its own."""
    folder = make_study(tmp_path)
    folder.record().model_copy(update={"kind": "single"}).write(folder.record_file)
    assert "is complete" in status_lines(folder)[0]
    for number in (0, 1):
        trial = folder.trial(number)
        trial.write_record(trial.record().model_copy(update={"state": TrialState.RUNNING}))
    runs = RunsFolder(tmp_path)
    name = folder.trial(0).record().name
    assert "is interrupted: " in status_lines(folder)[0]
    assert "`carray train`" in status_lines(folder)[-1]
    assert shown_lines(runs, find_shown(runs, name))[0] == f"trial {name} is interrupted"
    with claimed(folder.trial(0).lock_file):
        assert "is running: " in status_lines(folder)[0]
        assert shown_lines(runs, find_shown(runs, name))[0] == f"trial {name} is running"
        states = {row.number: row.state for row in study_table(folder)}
        assert (states[0], states[1]) == ("running", "interrupted")


def test_a_study_whose_folder_was_renamed_is_refused_with_its_name(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    folder.path.rename(folder.path.with_name("renamed"))
    runs = RunsFolder(tmp_path)
    assert [row["name"] for row in list_all(runs)["studies"]] == ["renamed"], (
        "as other commands take it"
    )
    assert list_lines(runs)[-1] == f"  carray show NAME --runs {shown_path(tmp_path)}"
    with pytest.raises(RecordError, match=r"renamed holds study 'toycars-quick'.*name it toycars"):
        runs.find_study("renamed")
