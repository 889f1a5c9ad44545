"""The commands' tables on a terminal of 80 columns, and where they go to no terminal."""

from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from carray.cli.app import app
from carray.reports.table import terminal_columns
from tests.ensemble.studies import StudySpec, Trial, make_study

LONG = ("mobilenetv3_small_050.lamb_in1k", "mobilenetv3_small_050.untrained_but_longer")
TRIALS = tuple(Trial(noise=2.0, scale=0.7) for _ in range(4))
COMMANDS = {
    ("list",): ("best", "log-loss", "autumn"),
    ("show", "autumn"): ("log-loss*", "top-1", "0003"),
    ("show", "autumn/0001"): ("log-loss", "top-1", "longer"),
    ("status", "autumn"): ("best log-loss", "lamb_in1k"),
    ("leaderboard", "autumn"): ("log-loss", "behind the best", "] =", "longer"),
    ("compare", "--study", "autumn", "--all"): ("test log-loss", "test top-1", "longer", "] "),
    ("experiments", "autumn"): ("loss", "val", "gap", "within noise"),
    ("ensemble", "autumn", "--logits-only"): ("log-loss", "top-1", "weight", "McNemar", "longer"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for files, record in make_study(root, StudySpec(TRIALS)).trials():
        config = record.config.model_copy(update={"backbone": LONG[record.number % 2]})
        files.write_record(record.model_copy(update={"config": config}))
    return root


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_tables_fit_80_columns_with_their_scores_and_names(
    runs: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(runs.parent)
    done = CliRunner().invoke(app, [*words, "--runs", runs.name])
    assert done.exit_code == 0, done.output
    assert max(map(len, done.output.splitlines())) <= 80, done.output
    for word in COMMANDS[words]:
        assert word in done.output


def test_what_goes_to_no_terminal_is_whole(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    for words in (("show", "autumn"), ("compare", "--study", "autumn"), ("leaderboard", "autumn")):
        done = CliRunner().invoke(app, [*words, "--runs", str(runs)])
        assert all(name in done.output for name in LONG), done.output


@pytest.fixture
def terminal() -> Iterator[int]:
    """One of 80 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    yield theirs
    os.close(ours)


def test_a_terminal_says_how_wide_it_is(terminal: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal_columns() is None
    with os.fdopen(terminal, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        assert terminal_columns() == 80
        monkeypatch.setenv("COLUMNS", "120")
        assert terminal_columns() == 120
