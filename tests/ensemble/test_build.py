"""From records to the honest number, without a model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from carray.analysis.compare_trials import compare_trials
from carray.config import build_config
from carray.ensemble import Ensemble, build_ensemble
from carray.ensemble.publish import tracked_values
from carray.ensemble.selection import USUAL
from carray.ensemble.tta import TtaRow
from carray.errors import ConfigError, RecordError
from carray.predictions.statistics import Interval
from carray.predictions.test_access import accesses
from carray.predictions.views import Tta, parse_views
from carray.records import TrialState
from carray.reports.ensemble import ensemble_lines
from carray.runs_folder import RunsFolder
from tests.ensemble.studies import StudySpec, Trial, make_study

DIVERSE = tuple(Trial(skill=2.0, noise=2.0, scale=0.7) for _ in range(5))
DATA = "m" * 64


def build(tmp_path: Path, spec: StudySpec, **options: object) -> Ensemble:
    make_study(tmp_path, spec)
    return build_ensemble(runs=tmp_path, logits_only=True, **options)  # type: ignore[arg-type]


def test_the_newest_study_and_its_best_three_are_taken(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(DIVERSE, name="older", started_at=1.0))
    made = build(tmp_path, StudySpec(DIVERSE, name="newer", started_at=2.0))
    assert made.study == "newer"
    assert {rule.rule for rule in made.rules} == {
        "soft vote",
        "logit mean",
        "hard vote",
        "wide stacking",
        "bagged selection",
        "fitted weights",
        "stacking",
        "greedy selection",
        "best single trial",
    }
    assert sum(rule.chosen for rule in made.rules) == 1
    assert [rule.members for rule in made.rules[:2]] == [3, 3]


def test_members_of_one_backbone_are_told_apart_by_their_heads(tmp_path: Path) -> None:
    trial = make_study(tmp_path, StudySpec(DIVERSE[:2])).trial(0)
    forest = build_config({"head.kind": "random_forest", "backbone": "resnet18"})
    trial.write_record(trial.record().model_copy(update={"config": forest}))
    made = build_ensemble(runs=tmp_path, logits_only=True, top=2)
    assert any("resnet18 + random_forest" in line for line in ensemble_lines(made))


def test_trials_with_errors_of_their_own_make_a_better_ensemble(tmp_path: Path) -> None:
    made = build(tmp_path, StudySpec(DIVERSE))
    assert made.test is not None
    assert made.test.verdict == "better"
    assert made.test.ensemble.log_loss.value < made.test.single.log_loss.value
    assert "better than the best single trial" in made.verdict


def test_many_trials_that_err_alone_are_stacked_widely(tmp_path: Path) -> None:
    """Which three of them are best on 100 images is chance."""
    images = {"val": 100, "blend": 100, "test": 400}
    many = build(tmp_path, StudySpec([Trial(skill=2.0, noise=5.0)] * 10, images))
    assert many.rule == "wide stacking"
    assert many.name == "autumn-wide9"
    assert len(many.chosen) == 9


def test_wide_stacking_of_trials_that_are_too_few_is_stacking(tmp_path: Path) -> None:
    few = build(tmp_path, StudySpec([Trial(skill=2.0, noise=3.0)] * 3), rule="wide stacking")
    assert few.name == "autumn-top3"
    rows = {row.rule: row for row in few.rules}
    assert rows["wide stacking"].log_loss == rows["stacking"].log_loss


def test_trials_that_all_err_alike_are_said_not_to_be_better(tmp_path: Path) -> None:
    made = build(tmp_path, StudySpec([Trial(noise=0.001)] * 3), rule="soft vote")
    assert made.test is not None
    assert made.test.verdict == "not better"
    assert "not shown to be better" in made.verdict


def test_greedy_may_use_pruned_trials(tmp_path: Path) -> None:
    pruned = [Trial(skill=6.0, noise=2.0, state=TrialState.PRUNED) for _ in range(3)]
    made = build(tmp_path, StudySpec([Trial(skill=1.0, noise=2.0)] * 3 + pruned))
    assert made.rule == "greedy selection"
    assert {member.state for member in made.members if member.weight > 0} == {"pruned"}


@pytest.mark.parametrize(("complete", "top", "members"), [(2, 3, 3), (5, 3, 5), (5, 1, 1)])
def test_stopped_trials_are_stacked_only_where_too_few_are_complete(
    tmp_path: Path, complete: int, top: int, members: int
) -> None:
    pruned = [Trial(state=TrialState.PRUNED)] * 4
    made = build(tmp_path, StudySpec([Trial()] * complete + pruned), top=top)
    assert {row.rule: row.members for row in made.rules}[USUAL] == members


def test_tracked_figures_bear_the_name_of_the_split_that_they_are_of(tmp_path: Path) -> None:
    images = {"val": 60, "blend": 5, "test": 40}
    make_study(tmp_path, StudySpec([Trial(), Trial()], images=images))
    made = build_ensemble(runs=tmp_path, top=2, logits_only=True)
    chosen = next(row for row in made.rules if row.chosen)
    told = tracked_values(made)
    assert told["val/log_loss"] == chosen.log_loss
    assert not [name for name in told if name.startswith("blend/")]
    gain = Interval(0.1, 0.05, 0.15)
    flip = TtaRow("flip", "logit", 2, 0.5, 0.9, gain, 0.001, 1.0, chosen=True)
    viewed = replace(made, tta=Tta("flip", "logit", parse_views("flip")), tta_rows=(flip,))
    assert tracked_values(viewed)["val/log_loss"] == 0.5


def test_without_a_blend_split_rules_are_cross_fitted_on_val_and_it_is_said(tmp_path: Path) -> None:
    made = build(tmp_path, StudySpec(DIVERSE, images={"val": 200, "test": 100}))
    assert made.judged_on == "val, cross-fitted"
    assert any("no blend split" in note for note in made.notes)


def test_test_is_opened_once_and_recorded(tmp_path: Path) -> None:
    made = build(tmp_path, StudySpec(DIVERSE), name="first")
    again = build_ensemble(runs=tmp_path, logits_only=True, name="first")
    other = build(tmp_path, StudySpec(DIVERSE, name="later", started_at=2e3, seed=1), name="second")
    assert (made.models_that_opened_test, again.models_that_opened_test) == (1, 1)
    assert other.models_that_opened_test == 2
    found = accesses(RunsFolder(tmp_path), DATA)
    assert [(opening.model, len(opening.times)) for opening in found] == [
        ("first", 2),
        ("second", 1),
    ]


def test_a_package_is_named_for_what_it_holds(tmp_path: Path) -> None:
    made = build(tmp_path, StudySpec([Trial(skill=3.0, noise=3.0)] * 7), rule="greedy selection")
    assert made.name == f"autumn-greedy{len(made.packaged)}"
    vote = build_ensemble(runs=tmp_path, logits_only=True, rule="soft vote")
    assert vote.name == "autumn-top3"


def test_a_measured_result_is_not_replaced_by_one_that_was_not(tmp_path: Path) -> None:
    build(tmp_path, StudySpec(DIVERSE), name="first")
    build_ensemble(runs=tmp_path, logits_only=True, name="first", open_test=False)
    results = RunsFolder(tmp_path).study("autumn").ensembles
    told = {file.name: json.loads(file.read_text())["test"] for file in results.glob("*.json")}
    assert set(told) == {"first.json", "first@2.json"}
    assert told["first.json"] is not None


@pytest.mark.parametrize(
    ("keep_best", "worse", "alone"),
    [(None, True, False), (None, False, False), (False, True, False), (True, True, True)],
)
def test_the_best_trial_is_kept_alone_where_the_ensemble_is_worse(
    tmp_path: Path, keep_best: bool | None, worse: bool, alone: bool
) -> None:
    poor = Trial(skill=0.2, noise=4.0) if worse else Trial(skill=3.0, noise=2.0)
    make_study(tmp_path, StudySpec([Trial(skill=3.0, noise=2.0), poor, poor]))
    made = build_ensemble(runs=tmp_path, logits_only=True, rule="soft vote", keep_best=keep_best)
    assert bool(made.kept_single) is alone
    assert len(made.packaged) == (1 if alone else 3)
    assert made.name == ("autumn-best1" if alone else "autumn-top3")
    assert any("isn't kept, since --rule" in note for note in made.notes) is (
        keep_best is None and worse
    )
    assert made.test is not None  # the ensemble is measured beside the trial in any case


def test_keep_best_keeps_the_trial_that_is_not_shown_to_be_worse(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec([Trial(noise=0.001)] * 3))
    made = build_ensemble(runs=tmp_path, logits_only=True, rule="soft vote", keep_best=True)
    assert made.kept_single


def test_an_ensemble_that_test_speaks_against_names_the_option_that_keeps_the_trial(
    tmp_path: Path,
) -> None:
    """Test doesn't choose: where `blend` was for it, the ensemble is the model."""
    made = build(tmp_path, StudySpec(DIVERSE))
    assert made.test is not None and made.test.verdict != "worse"
    worse = replace(made.test, log_loss_gain=Interval(-0.1, -0.2, -0.05), log_loss_p=0.01)
    for test, is_told in ((made.test, False), (worse, True)):
        lines = " ".join(ensemble_lines(replace(made, test=test, package=tmp_path / "m")))
        assert ("--keep-best packages autumn/000" in lines) is is_told


def test_a_trial_has_the_figure_that_compare_gives_it(tmp_path: Path) -> None:
    made = build(tmp_path, StudySpec([Trial(skill=3.0, scale=4.0) for _ in range(3)]))
    assert made.single_temperature != 1
    compared = compare_trials(runs=tmp_path, every=True)
    row = next(row for row in compared.rows if row.trial == made.single.trial)
    assert made.single_untempered is not None
    assert made.single_untempered.log_loss == row.log_loss
    lines = "\n".join(ensemble_lines(made))
    assert f"as it is {row.log_loss.value:.4f}".split()[-1] in lines
    assert f"temp. {made.single_temperature:.2f}" in lines


def test_each_figure_of_the_verdict_has_its_own_p(tmp_path: Path) -> None:
    made = build(tmp_path, StudySpec(DIVERSE))
    test = made.test
    assert test is not None
    sure = replace(test, log_loss_p=0.001, top1_gain=Interval(0.01, -0.02, 0.04), top1_p=0.3)
    told = replace(made, test=sure).verdict
    assert told.startswith("The ensemble is better than the best single trial on test")
    assert "p = 0.001: better; top-1" in told
    assert told.endswith("p = 0.3: may be chance).")


def test_test_stays_closed_when_asked(tmp_path: Path) -> None:
    made = build(tmp_path, StudySpec(DIVERSE), open_test=False)
    assert made.test is None
    assert accesses(RunsFolder(tmp_path), DATA) == []
    assert "not opened" in made.verdict


def test_the_test_split_of_trials_that_were_not_chosen_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from carray.records import TrialFolder

    read: list[tuple[str, str]] = []
    logits = TrialFolder.logits

    def spy(self: TrialFolder, split: str) -> np.ndarray:
        read.append((split, self.path.name))
        return logits(self, split)

    monkeypatch.setattr(TrialFolder, "logits", spy)
    made = build(tmp_path, StudySpec(DIVERSE, seed=4))
    used = {made.members[number].trial for number in made.blend.members} | {made.single.trial}
    assert {f"autumn/{trial}" for split, trial in read if split == "test"} == used


def test_a_rule_can_be_asked_for(tmp_path: Path) -> None:
    made = build(tmp_path, StudySpec(DIVERSE), rule="soft vote")
    assert made.rule == "soft vote"
    assert len(made.blend.members) == 3
    with pytest.raises(ConfigError, match=r"unknown rule 'softvote'; did you mean 'soft vote'"):
        build_ensemble(runs=tmp_path, rule="softvote")


def test_the_best_single_trial_is_the_best_on_val_not_on_test(tmp_path: Path) -> None:
    made = build(tmp_path, StudySpec([Trial(skill=1), Trial(skill=3), Trial(skill=2)]))
    assert made.single.trial == "autumn/0001"


def test_stopped_trials_vote_where_too_few_are_complete_and_the_best_of_them_is_the_rival(
    tmp_path: Path,
) -> None:
    pruned = TrialState.PRUNED
    trials = [Trial(skill=4, state=pruned), Trial(skill=2), Trial(skill=1, state=pruned)]
    made = build(tmp_path, StudySpec(trials), rule="soft vote")
    assert [member.trial[-4:] for member in made.chosen] == ["0001", "0000", "0002"]
    assert made.single.trial == "autumn/0000"
    told = "stopped early: 2 of 3 trials to vote, as only 1 can join that ran to the end"
    assert told in made.notes
    ended = build(tmp_path / "ended", StudySpec([*trials, Trial(), Trial()]))
    assert not any("stopped early" in note for note in ended.notes)


def test_one_trial_is_not_compared_with_itself(tmp_path: Path) -> None:
    made = build(tmp_path, StudySpec([Trial(state=TrialState.PRUNED)]), top=1)
    assert made.verdict.startswith("The ensemble is the best single trial alone")
    assert "stopped early: 1 of 1 trial to vote, as none can join that ran to the end" in made.notes


def test_everything_is_json(tmp_path: Path) -> None:
    made = build(tmp_path, StudySpec(DIVERSE))
    told = json.loads(json.dumps(made.as_dict(), allow_nan=False))
    assert told["test"]["verdict"] == "better"
    assert told["members"][0]["weight"] > 0


def test_where_fewer_can_join_than_asked_for_all_do_and_it_is_said(tmp_path: Path) -> None:
    made = build(
        tmp_path, StudySpec([Trial(skill=2), Trial(skill=3, refit_of=0)]), rule="soft vote"
    )
    assert (len(made.chosen), made.name) == (1, "autumn-best1")
    assert made.notes[0] == "--top 3 asks for more than there are: 1 trial can join"


def test_no_trial_and_bad_names_are_refused(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(DIVERSE))
    with pytest.raises(RecordError, match=r"there is no study 'autum'.*did you mean 'autumn'"):
        build_ensemble("autum", runs=tmp_path)
    with pytest.raises(ConfigError, match="can't be a folder"):
        build_ensemble(runs=tmp_path, name="../up")
    assert not (tmp_path / "models").exists()


def test_labels_that_nobody_knows_are_told(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(DIVERSE)).labels_file.unlink()
    with pytest.raises(RecordError, match=r"has no labels\.npz and its data can't be read"):
        build_ensemble(runs=tmp_path)


def test_building_imports_neither_torch_nor_mlflow(tmp_path: Path) -> None:
    make_study(tmp_path, StudySpec(DIVERSE))
    code = (
        "import sys; from carray.ensemble import build_ensemble as b;"
        f"b(runs={str(tmp_path)!r}, logits_only=True);"
        "print({'torch', 'mlflow', 'ray', 'sklearn', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
