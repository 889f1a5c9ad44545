"""The table of experiments: each trial against the nearest earlier one, in three formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from carray.analysis.experiments import experiments_of
from carray.cli.app import app
from carray.config import build_config
from carray.errors import ConfigError
from carray.records import StudyFolder
from carray.reports.experiments import experiment_lines, format_of
from tests.ensemble.studies import StudySpec, Trial, make_study

CONFIGS = (
    {"optimizer.lr": 1e-3},
    {"optimizer.lr": 1e-4, "augment.strength": 0.8},
    {"optimizer.lr": 1e-3, "dropout": 0.3},
    {"optimizer.lr": 1e-3, "dropout": 0.3, "seed": 5},
)


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    """Three trials and another seed of the third, which alone is much better."""
    skills = (2.0, 0.5, 5.0, 5.0)
    folder = make_study(tmp_path / "runs", StudySpec([Trial(skill=skill) for skill in skills]))
    for number, params in enumerate(CONFIGS):
        record = folder.trial(number).record()
        measured = {"train/top1": 0.99, "peak_memory_gib": 1.5, "images_per_second": 100.0}
        rows = tuple({**row, **measured} for row in record.epochs)
        changed = {"config": build_config(params), "epochs": rows, "parameters": 1_500_000}
        folder.trial(number).write_record(record.model_copy(update=changed))
    return folder


def test_each_trial_is_held_against_the_nearest_earlier_one(study: StudyFolder) -> None:
    first, worse, better, seed = experiments_of(study).rows
    assert (first.against, first.gain, first.verdict) == ("", None, "")
    assert worse.against == better.against == "autumn/0000"
    assert dict(worse.changes) == {"optimizer.lr": (1e-3, 1e-4), "augment.strength": (0.3, 0.8)}
    assert dict(better.changes) == {"dropout": (0.0, 0.3)}
    assert (worse.verdict, better.verdict) == ("worse", "better")
    assert (seed.against, dict(seed.changes)) == ("autumn/0002", {"seed": (0, 5)})
    assert seed.verdict == "within noise"
    assert first.gap == pytest.approx(0.99 - first.val_top1)


@pytest.mark.parametrize(
    ("metric", "verdict"),
    [("val/log_loss", "worse"), ("val/calibrated_log_loss", "better")],
)
def test_a_trial_that_is_too_little_sure_is_judged_as_the_study_does(
    tmp_path: Path, metric: str, verdict: str
) -> None:
    trials = [Trial(skill=2.0), Trial(skill=4.0, scale=0.1)]
    folder = make_study(tmp_path / "runs", StudySpec(trials, metric=metric))
    assert [row.verdict for row in experiments_of(folder).rows] == ["", verdict]


def test_lines_fit_and_say_what_changed(study: StudyFolder) -> None:
    lines = experiment_lines(experiments_of(study))
    assert max(map(len, lines)) <= 100
    assert any("1.50 M" in line and "1.50" in line and "0.990" in line for line in lines)
    assert any(line.endswith("better: against 0000: dropout 0 -> 0.3") for line in lines)


def test_the_table_is_csv_markdown_and_json(study: StudyFolder, tmp_path: Path) -> None:
    words = ["experiments", "autumn", "--runs", str(tmp_path / "runs")]

    def told(*more: str) -> str:
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 0, done.output
        return done.stdout

    rows = list(csv.DictReader(told("--format", "csv").splitlines()))
    assert [row["verdict"] for row in rows] == ["", "worse", "better", "within noise"]
    assert rows[2]["changes"] == "dropout 0 -> 0.3"
    assert json.loads(told("--json"))["rows"][2]["verdict"] == "better"
    told("--out", str(tmp_path / "table.md"))
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 6
    assert {line.count("|") for line in lines} == {24}
    with pytest.raises(ConfigError, match="--format 'pdf' must be one of text, csv, markdown"):
        format_of("pdf", None)
    assert format_of("csv", Path("table")) == "csv"  # without an ending none is wrong


@pytest.mark.parametrize(
    ("form", "name", "why"),
    [
        (None, "x.xyz", r"x\.xyz must end in \.csv or \.md or \.txt$"),
        ("csv", "x.md", r"x\.md must end in \.csv for --format csv"),
    ],
)
def test_a_file_that_ends_as_another_format_is_refused(
    form: str | None, name: str, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        format_of(form, Path(name))
