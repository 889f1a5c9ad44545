"""What is said to type next can be typed from the folder that a person is in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from carray.reports.hints import command, in_runs, runs_option, shown_model, shown_path


def test_the_runs_folder_is_told_only_where_commands_would_not_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert runs_option(None) == ""
    assert runs_option(Path("runs")) == ""
    assert runs_option(tmp_path / "runs") == ""
    assert runs_option(tmp_path / "demo" / "runs") == " --runs demo/runs"
    assert runs_option(tmp_path / "my runs") == " --runs 'my runs'"
    assert runs_option(tmp_path.parent / "other") == f" --runs {tmp_path.parent / 'other'}"
    monkeypatch.setenv("CARRAY_RUNS", str(tmp_path / "kept"))
    assert runs_option(tmp_path / "kept") == ""
    assert runs_option(tmp_path / "runs") == " --runs runs"


@pytest.mark.parametrize("given", ["", " --runs autumn", " --runs=autumn"])
def test_a_recorded_command_goes_on_in_the_folder_that_is_looked_at(given: str) -> None:
    recorded = f"carray tune 'my cars'{given} --study ts"
    assert in_runs(recorded, " --runs copy") == "carray tune 'my cars' --study ts --runs copy"
    assert in_runs(recorded, "") == "carray tune 'my cars' --study ts"


def test_paths_and_models_are_told_as_a_shell_and_a_command_take_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(Path("-d2")) == shown_path(tmp_path / "-d2") == "./-d2"
    assert shown_path(tmp_path / "d 2") == "'d 2'"
    assert shown_model(tmp_path / "runs" / "models" / "autumn") == "autumn"
    elsewhere = tmp_path / "my runs" / "models" / "best of (all)"
    assert shown_model(elsewhere) == "'best of (all)' --runs 'my runs'"
    assert shown_model(tmp_path / "copied") == "copied"


def test_the_command_is_told_as_this_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    own = tmp_path / ".venv" / "bin" / "carray"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(own.with_name("python")))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command() == ".venv/bin/carray"
    monkeypatch.setenv("PATH", str(own.parent))
    assert command() == "carray"
    other = tmp_path / "carray"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{own.parent}")
    assert command() == ".venv/bin/carray"
