"""What an ensemble is drawn from: trials on folds, and several studies on one data set."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from carray.cli.app import app
from carray.ensemble import build_ensemble
from carray.errors import ConfigError, RecordError
from carray.predictions.candidates import find_candidates, read_trials
from carray.records import TrialState
from tests.ensemble.studies import StudySpec, Trial, make_study


def on_folds(of: int, skill: float, states: Sequence[TrialState] = ()) -> list[Trial]:
    """Return the trials of one configuration on three folds."""
    ends = (*states, *[TrialState.COMPLETE] * 3)
    return [Trial(skill, 1.5, ends[fold], same_as=of, fold=fold) for fold in range(3)]


FOLDED = StudySpec([Trial(4.0), Trial(3.0), *on_folds(90, 1.5), *on_folds(91, 2.5)])


def members_of(found: Sequence[object]) -> list[str]:
    return [Path(str(one.folder.path)).name for one in found]  # type: ignore[attr-defined]


def test_the_best_configurations_vote_with_all_their_folds_before_other_trials(
    tmp_path: Path,
) -> None:
    folder = make_study(tmp_path, FOLDED)
    read = read_trials(folder)
    found = find_candidates(folder.record(), read, folds=True)
    assert members_of(found.best(1)) == ["0005", "0006", "0007"]
    assert members_of(found.best(3)) == ["0005", "0006", "0007", "0002", "0003", "0004", "0000"]
    assert members_of(find_candidates(folder.record(), read).best(2)) == ["0000", "0001"]
    assert len(found.ranked()) == 4
    assert len(found.best(5)) == 8, "all that there are"


def test_a_fold_that_failed_does_not_lose_the_others(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(on_folds(90, 2.0, [TrialState.FAILED])))
    made = build_ensemble(runs=tmp_path, top=1, folds=True, logits_only=True, rule="soft vote")
    assert [member.fold for member in made.chosen] == [1, 2]
    assert made.combination.average.weights == (0.5, 0.5)


def test_folds_are_measured_against_the_best_trial_of_all_training_images(tmp_path: Path) -> None:
    make_study(tmp_path, FOLDED)
    made = build_ensemble(runs=tmp_path, top=2, folds=True, logits_only=True)
    assert made.single.trial == "autumn/0000"
    assert made.single.fold is None
    assert {member.fold for member in made.members} >= {0, 1, 2}
    counts = {row.rule: row.members for row in made.rules}
    assert counts["wide stacking"] == counts["soft vote"], "folds are members enough"
    named = build_ensemble(runs=tmp_path, top=2, folds=True, logits_only=True, rule="soft vote")
    assert named.name == "autumn-top2-folds"
    assert len(named.chosen) == 6


def test_folds_that_are_not_there_are_missed_aloud(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec([Trial(4.0), Trial(3.0)]))
    made = build_ensemble(runs=tmp_path, top=2, folds=True, logits_only=True)
    assert any("no trial of autumn is on a fold" in note for note in made.notes)


def test_folds_need_blend(tmp_path: Path) -> None:
    images = {"val": 300, "blend": 0, "test": 100}
    make_study(tmp_path, StudySpec(FOLDED.trials, images))
    with pytest.raises(RecordError, match=r"--with-folds needs a blend split of at least 10"):
        build_ensemble(runs=tmp_path, folds=True, logits_only=True)


def test_trials_of_two_studies_on_one_data_set_meet(tmp_path: Path) -> None:
    autumn = StudySpec([Trial(2.5), Trial(1.0)], trials_seed=5)
    winter = StudySpec([Trial(2.0), Trial(1.0), Trial(2.4)], name="winter", trials_seed=6)
    first, second = make_study(tmp_path, autumn), make_study(tmp_path, winter)
    assert np.array_equal(first.labels("blend"), second.labels("blend"))
    made = build_ensemble(["autumn", "winter"], runs=tmp_path, logits_only=True, rule="soft vote")
    assert made.study == "autumn + winter"
    assert {member.trial for member in made.chosen} == {"autumn/0000", "winter/0002", "winter/0001"}
    left_out = [note for note in made.notes if "configuration that is already in" in note]
    assert left_out == ["left out: 2 trials of a configuration that is already in"]


def test_a_model_of_many_studies_has_a_name_that_a_file_can_bear(tmp_path: Path) -> None:
    names = [f"{'long' * 10}-{number}" for number in range(8)]
    for number, name in enumerate(names):
        make_study(tmp_path, StudySpec([Trial(2.5)], name=name, trials_seed=5 + number))
    made = build_ensemble(names, runs=tmp_path, logits_only=True, rule="soft vote")
    assert made.name.startswith(f"{names[0]}+7-more-")
    assert made.study == " + ".join(names)


@pytest.mark.parametrize(
    ("other", "error", "says"),
    [
        (
            StudySpec([Trial()], name="winter", manifest_hash="n" * 64),
            RecordError,
            "different data",
        ),
        (StudySpec([Trial()], name="winter", metric="val/top1"), ConfigError, "--metric val/log"),
    ],
)
def test_studies_that_can_not_meet_are_refused(
    tmp_path: Path, other: StudySpec, error: type[Exception], says: str
) -> None:
    make_study(tmp_path, StudySpec([Trial()]))
    make_study(tmp_path, other)
    with pytest.raises(error, match=re.escape(says)):
        build_ensemble(["autumn", "winter"], runs=tmp_path, logits_only=True)


@pytest.mark.parametrize("names", [["--studies", "autumn", "winter"], ["autumn", "winter"]])
def test_the_command_line_takes_several_studies(tmp_path: Path, names: list[str]) -> None:
    make_study(tmp_path, StudySpec([Trial(2.5), Trial(1.0)], trials_seed=5))
    make_study(tmp_path, StudySpec([Trial(), Trial(), Trial(2.4)], name="winter", trials_seed=6))
    more = ["--top", "2", "--logits-only", "--no-test", "--runs", str(tmp_path)]
    done = CliRunner().invoke(app, ["ensemble", *names, *more])
    assert done.exit_code == 0, done.output
    assert "of studies autumn + winter" in done.stdout
    assert re.search(r"^(autumn|winter)/000\d +", done.stdout, re.MULTILINE)
    as_json = CliRunner().invoke(app, ["ensemble", *names, *more, "--json"])
    assert json.loads(as_json.stdout)["study"] == "autumn + winter"
