"""What a search brought over its first recipe: the right trials, paired, and said either way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from carray import metrics
from carray.analysis.search_gain import search_gain
from carray.config import build_config
from carray.progress import seconds_text
from carray.records import StudyFolder, StudyRecord, TrialRecord, TrialState
from carray.reports.study import study_json, study_lines

CLASSES, IMAGES = 5, 200
LABELS = np.arange(IMAGES) % CLASSES


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    study = StudyFolder(tmp_path / "studies" / "s")
    study.path.mkdir(parents=True)
    study.write_labels({"val": LABELS, "blend": LABELS, "test": LABELS})
    StudyRecord(name="s", state="complete").write(study.record_file)
    return study


def add(
    folder: StudyFolder,
    number: int,
    lr: float,
    loss: float,
    skill: float,
    state: str = "complete",
    is_given: bool = False,
) -> None:
    """Write a trial: its lr, its log-loss on val, and how much its logits know of the classes."""
    rng = np.random.default_rng(number)
    logits = rng.normal(size=(IMAGES, CLASSES))
    logits[np.arange(IMAGES), LABELS] += skill
    files = folder.trial(number)
    files.path.mkdir(parents=True)
    files.write_logits({name: logits.astype(np.float16) for name in ("val", "blend")})
    scores = dict.fromkeys(metrics.LOG_LOSSES, loss)
    row = {**scores, metrics.VAL_TOP1: 0.5, metrics.EPOCH_SECONDS: 60.0}
    config = build_config({"optimizer.lr": lr, "seed": number})
    record = TrialRecord.begin("s", number, config, "hash")
    ended = {"state": TrialState(state), "epochs": (row,), "is_given": is_given}
    files.write_record(record.model_copy(update=ended))


def seeds(folder: StudyFolder, count: int = 3, skill: float = 1.0) -> None:
    for number in range(count):
        add(folder, number, 1e-3, 1.0 + 0.1 * number, skill)


def test_the_best_trials_are_held_against_as_many_seeds_of_the_first_recipe(
    folder: StudyFolder,
) -> None:
    seeds(folder)
    for number, loss in ((3, 0.5), (4, 0.4), (5, 0.6), (6, 2.0)):
        add(folder, number, 2e-3 * number, loss, skill=3.0)
    gain = search_gain(folder)
    assert gain is not None
    assert (gain.split, gain.members) == ("blend", 3)
    assert gain.best == ("s/0004", "s/0003", "s/0005")
    assert gain.recipe == ("s/0000", "s/0001", "s/0002")
    assert gain.gain.low > 0 and gain.p < 0.05 and gain.verdict == "better"
    assert gain.seed_spread == pytest.approx(0.1)
    assert (gain.best_seconds, gain.recipe_seconds) == (420.0, 180.0)
    text = "\n".join(study_lines(folder))
    assert "the search against its first recipe" in text and ": better" in text
    assert f"{seconds_text(420)} of training against {seconds_text(180)}" in text
    assert json.loads(json.dumps(study_json(folder)))["search_gain"]["members"] == 3


def test_the_recipe_is_the_starting_point_that_was_repeated_first(folder: StudyFolder) -> None:
    for number, lr in enumerate((1e-3, 2e-3, 2e-3, 5e-3, 5e-3, 5e-3)):
        add(folder, number, lr, 1.0 - 0.1 * number, skill=1.0)
    gain = search_gain(folder)
    assert gain is not None and gain.recipe == ("s/0001", "s/0002")


@pytest.mark.parametrize("repeated", [3, 1])
def test_the_recipe_is_the_best_given_point_whatever_was_repeated_first(
    folder: StudyFolder, repeated: int
) -> None:
    """Three is a draw, and one a given point that came to its end first."""
    for number, (lr, loss) in enumerate(((1e-3, 2.0), (2e-3, 1.5), (3e-3, 1.0), (4e-3, 0.9))):
        add(folder, number, lr, loss, skill=1.0, is_given=number < 3)
    add(folder, 4, 1e-3 * (1 + repeated), 0.8, skill=1.0)
    add(folder, 5, 3e-3, 1.1, skill=1.0)
    gain = search_gain(folder)
    assert gain is not None and gain.recipe == ("s/0002", "s/0005")


def test_what_was_stopped_cost_the_search_time_too(folder: StudyFolder) -> None:
    seeds(folder, 1)
    add(folder, 1, 5e-3, 0.5, skill=3.0)
    for number, state in enumerate(("pruned", "failed", "collapsed"), start=2):
        add(folder, number, 6e-3, 2.0, skill=0.1, state=state)
    gain = search_gain(folder)
    assert gain is not None and (gain.best_seconds, gain.recipe_seconds) == (300.0, 60.0)


def test_a_search_that_lost_says_so(folder: StudyFolder) -> None:
    seeds(folder, skill=3.0)
    for number in (3, 4, 5):
        add(folder, number, 2e-3 * number, 0.5, skill=0.5)
    gain = search_gain(folder)
    assert gain is not None and gain.verdict == "worse" and gain.gain.high < 0
    assert gain.best_top1 < gain.recipe_top1 and gain.top1_p < 0.01
    printed = " ".join(" ".join(study_lines(folder)).split())
    assert f"worse; top-1 {gain.best_top1:.3f}, {gain.recipe_top1:.3f}, p = " in printed


def test_without_a_blend_val_is_said_to_have_chosen(folder: StudyFolder) -> None:
    folder.write_labels({"val": LABELS, "blend": LABELS[:5], "test": LABELS})
    seeds(folder, 1)
    add(folder, 1, 5e-3, 0.5, skill=3.0)
    gain = search_gain(folder)
    assert gain is not None and (gain.split, gain.members, gain.seed_spread) == ("val", 1, None)
    assert "val also chose the best trials" in " ".join("\n".join(study_lines(folder)).split())


def test_nothing_is_said_where_nothing_can_be(folder: StudyFolder) -> None:
    assert search_gain(folder) is None
    seeds(folder, 1)
    assert search_gain(folder) is None


@pytest.mark.parametrize("count", [1, 3])
def test_a_search_that_found_nothing_better_says_so(folder: StudyFolder, count: int) -> None:
    seeds(folder, count)
    add(folder, count, 5e-3, 3.0, skill=0.1)
    gain = search_gain(folder)
    assert gain is not None and gain.gain.value == 0.0 and gain.verdict == "within noise"
    printed = " ".join(" ".join(study_lines(folder)).split())
    recipe = "trial 0000" if count == 1 else "3 seeds of the recipe"
    assert f"nothing that it tried came out better than {recipe} (log-loss on 200" in printed


def test_seeds_of_one_recipe_are_no_search_over_it(folder: StudyFolder) -> None:
    seeds(folder, 4)
    assert search_gain(folder) is None
    printed = " ".join(" ".join(study_lines(folder)).split())
    assert "4 seeds of s/0000's configuration: 1.150, standard deviation 0.129" in printed


def test_a_first_trial_that_did_not_end_is_no_recipe_to_compare_with(folder: StudyFolder) -> None:
    add(folder, 0, 1e-3, 1.0, 1.0, state="collapsed")
    for number in (1, 2):
        add(folder, number, 1e-3 * number, 1.0, 1.0)
    assert search_gain(folder) is None
