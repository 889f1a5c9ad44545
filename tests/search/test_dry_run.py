"""What a study would do is said without doing it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from carray.metrics import EPOCH_SECONDS
from carray.records import TrialState
from carray.search.dry_run import dry_run, first_trials
from carray.search.request import StudyRequest
from carray.search.scheduling.refits import wanted_refits
from carray.search.setup import StudySetup, write_files

SPACE = """
version: 1
fixed: {image_size: 32, pretrained: false, backbone: test_resnet, epochs: 3, device_batch_size: 8}
search:
  optimizer.lr: {loguniform: [1e-4, 3e-2]}
start:
  - {optimizer.lr: 5e-3}
"""


def test_a_plan_its_first_trials_and_the_time_are_said_and_nothing_is_written(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    space, runs = tmp_path / "space.yaml", tmp_path / "runs"
    space.write_text(SPACE)
    run = dry_run(StudyRequest(data=toy_data, space=str(space), trials=4, refit=1, runs=str(runs)))
    lines = run.lines()
    assert any(line.startswith("4 trials of at most 3 epochs") for line in lines)
    first = lines.index("the first trials:") + 1
    assert lines[first] == "  test_resnet, lr 0.005"
    assert all(line.startswith("  test_resnet, lr ") for line in lines[first : first + 4])
    assert any("for 4 trials trained whole and" in line for line in lines)
    assert all(len(line) <= 100 for line in lines)
    assert not runs.exists()
    trials = cast(list[dict[str, object]], run.as_dict()["trials"])
    assert trials[0] == {"number": 0, "params": {"optimizer.lr": 5e-3}}
    assert run.estimate.seconds is not None
    assert run.estimate.seconds > 0
    assert run.estimate.fitting == run.estimate.left == 4


def test_a_budget_names_the_trials_that_it_has_room_for(toy_data: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    asked = StudyRequest(data=toy_data, space=str(space), trials=900, runs=str(tmp_path / "runs"))
    whole = dry_run(asked).estimate.seconds
    assert whole is not None
    run = dry_run(replace(asked, budget=f"{0.2 * whole:.2f}s", refit=0))
    assert 1 <= run.estimate.fitting < 900
    assert any(f"for {run.estimate.fitting} of 900 trials trained" in line for line in run.lines())


def test_a_study_that_was_begun_says_how_many_trials_are_left(
    toy_data: Path, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    runs = str(tmp_path / "runs")
    asked = StudyRequest(data=toy_data, space=str(space), trials=3, runs=runs)
    setup = StudySetup.resolve(asked)
    drawn = first_trials(setup, known=0)
    write_files(setup)
    setup.study.write(setup.folder.record_file)
    ended = {"state": TrialState.FAILED, "ended_at": 1.0}
    for left, trial in zip((2, 1, 0), drawn, strict=True):
        setup.folder.trial(trial.number).write_record(trial.model_copy(update=ended))
        lines = dry_run(asked).lines()
        said = "no trial is left to run" if left == 0 else f"{left} trial"
        assert any(line.startswith(said) and line.endswith("left to run") for line in lines)


@pytest.mark.parametrize("budget", [None, "1h"])
def test_refits_and_starting_points_of_a_complete_study_are_not_planned_again(
    budget: str | None, toy_data: Path, tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    runs = str(tmp_path / "runs")
    asked = StudyRequest(data=toy_data, space=str(space), trials=1, runs=runs, budget=budget)
    asked = replace(asked, refit=None if budget else 1)
    setup = StudySetup.resolve(asked)
    write_files(setup)
    setup.study.write(setup.folder.record_file)
    row = {EPOCH_SECONDS: 1.0, setup.study.metric: 1.0}
    ended = {"state": TrialState.COMPLETE, "epochs": (row,) * 3, "ended_at": 1.0}
    trial = first_trials(setup, known=0)[0].model_copy(update=ended)
    setup.folder.trial(0).write_record(trial)
    run = dry_run(asked)
    assert run.estimate.seconds_again > 0
    assert not any(line.startswith("starting points") for line in run.lines())
    for number, refit in enumerate(wanted_refits(asked, [trial], setup.refit_lengths[-1]), 1):
        config = trial.config.model_copy(update={"epochs": refit.epochs, "seed": refit.seed})
        again = {"number": number, "kind": "refit", "refit_of": 0, "config": config}
        setup.folder.trial(number).write_record(trial.model_copy(update=again))
    assert dry_run(asked).estimate.seconds_again == 0
