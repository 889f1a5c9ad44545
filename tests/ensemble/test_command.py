"""`carray ensemble` and `carray report` on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from carray.cli import main
from carray.cli.app import app
from carray.errors import ConfigError
from carray.records import TrialState
from carray.reports.study import study_json
from tests.ensemble.studies import StudySpec, Trial, make_study

TRIALS = tuple(Trial(noise=2.0, scale=0.7) for _ in range(4))


def call(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


def test_the_tables_fit_100_columns_and_end_with_a_verdict(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(TRIALS))
    printed = call("ensemble", "--runs", str(tmp_path), "--logits-only")
    assert max(map(len, printed.splitlines())) <= 100
    assert "The ensemble is better than the best single trial on test" in printed
    assert "95 % interval" in printed
    for rule in ("soft vote", "logit mean", "fitted weights", "greedy selection"):
        assert rule in printed


def test_members_have_the_score_that_the_study_gives_them(tmp_path: Path) -> None:
    metric = "val/calibrated_log_loss"
    folder = make_study(tmp_path, StudySpec(TRIALS, metric=metric))
    for files, record in folder.trials():  # as it comes it is another number
        rows = tuple({**row, metric: row["val/log_loss"] - 0.1} for row in record.epochs)
        files.write_record(record.model_copy(update={"epochs": rows}))
    printed = call("ensemble", "--runs", str(tmp_path), "--logits-only")
    table = printed.split("\n\n")[1].splitlines()
    assert "val cal. loss  val top-1  blend cal. loss" in table[0]
    told = json.loads(call("ensemble", "--runs", str(tmp_path), "--logits-only", "--json"))
    shown = {row["trial"]: row["calibrated_log_loss"] for row in study_json(folder)["trials"]}
    for line, member in zip(table[1:], told["members"], strict=True):
        assert f" {shown[member['trial']]:.4f} " in line
        assert member["val_log_loss"] == pytest.approx(shown[member["trial"]] + 0.1)
        assert member["judged_value"] < member["blend_log_loss"]  # at the temperature that suits it
    alone = next(row for row in told["rules"] if row["rule"] == "best single trial")
    assert told["single"]["judged_value"] == alone["value"]


def test_json_is_one_object(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(TRIALS))
    told = json.loads(call("ensemble", "--runs", str(tmp_path), "--logits-only", "--json"))
    assert told["study"] == "autumn"
    assert len(told["members"]) >= 3


def test_a_report_writes_the_picture_beside_the_study(tmp_path: Path) -> None:
    folder = make_study(tmp_path, StudySpec(TRIALS))
    call("ensemble", "--runs", str(tmp_path), "--logits-only")
    assert "0003" in call("report", "--runs", str(tmp_path))
    assert (folder.path / "picture.png").stat().st_size > 20_000


def test_a_report_s_picture_is_a_png(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(TRIALS))
    for name in ("x.txt", "x.jpg", "x"):
        words = ["report", "--runs", str(tmp_path), "--out", str(tmp_path / name)]
        done = CliRunner().invoke(app, words)
        assert isinstance(done.exception, ConfigError)
        assert str(done.exception) == f"--out {tmp_path / name} must be a .png file"
        assert not (tmp_path / name).exists()
    call("report", "--runs", str(tmp_path), "--out", str(tmp_path / "x.PNG"))
    assert (tmp_path / "x.PNG").stat().st_size > 20_000


def test_asking_for_30_of_4_trials_takes_4_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path, StudySpec(TRIALS))
    monkeypatch.setenv("CARRAY_RUNS", str(tmp_path))
    made = call("ensemble", "--top", "30", "--logits-only")
    assert "note: --top 30 asks for more than there are: 4 trials can join" in made


def test_a_study_without_a_trial_that_can_join_is_one_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path, StudySpec([Trial(state=TrialState.COLLAPSED)]))
    monkeypatch.setenv("CARRAY_RUNS", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["carray", "ensemble"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "study 'autumn' has no trial yet that could join an ensemble" in said.err
    assert len(said.err.splitlines()) == 1
    assert not (tmp_path / "models").exists()
