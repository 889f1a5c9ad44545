"""Draws near what is good: whose copies, how far, and every fourth trial by the learner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import optuna
import pytest

from carray.config import TrialConfig
from carray.records import StudyFolder, TrialRecord, TrialState
from carray.search.sampling.local import (
    CHANGED,
    GLOBAL_EVERY,
    SEEDS,
    STARTUP_TRIALS,
    UNCHANGED,
    LocalSampler,
)
from carray.search.sampling.members import EnsembleMembers
from carray.search.sampling.storage import DRAWN_AGAIN

CLASSES, IMAGES = 4, 60


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


def draw(trial: optuna.Trial) -> dict[str, float | str | int]:
    return {
        "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        "drop": trial.suggest_float("drop", 0.0, 0.5),
        "width": trial.suggest_int("width", 1, 64),
        "net": trial.suggest_categorical("net", ["a", "b", "c"]),
    }


def study_with(points: list[dict[str, float | str | int]], **options: object) -> optuna.Study:
    sampler = LocalSampler(optuna.samplers.RandomSampler(seed=1), 0, **options)  # type: ignore[arg-type]
    study = optuna.create_study(sampler=sampler)
    for value, point in enumerate(points):
        study.enqueue_trial(point)
        trial = study.ask()
        assert draw(trial) == point
        study.tell(trial, float(value))
    return study


def is_learners(number: int) -> bool:
    """Whether the learner draws a trial of a study that was given points."""
    return number >= STARTUP_TRIALS and number % GLOBAL_EVERY == GLOBAL_EVERY - 1


GOOD = {"lr": 2e-3, "drop": 0.1, "width": 8, "net": "b"}
BAD = {"lr": 9e-2, "drop": 0.5, "width": 60, "net": "c"}


def test_copies_are_near_the_anchor_and_within_the_ranges() -> None:
    def anchors() -> Mapping[int, float]:
        return {0: 1.0}

    study = study_with([GOOD, BAD], anchors=anchors)
    drawn = [draw(study.ask()) for _ in range(200)]
    copies = [d for n, d in enumerate(drawn, start=2) if not is_learners(n)][SEEDS - 1 :]
    ratios = np.log10([float(d["lr"]) / 2e-3 for d in copies])
    assert np.median(np.abs(ratios)) < 0.3
    same = UNCHANGED + (1 - UNCHANGED) * (1 - CHANGED)
    assert np.mean([d["lr"] == 2e-3 for d in copies]) == pytest.approx(same, abs=0.12)
    assert np.mean([d == GOOD for d in copies]) == pytest.approx(UNCHANGED, abs=0.1)
    assert np.mean([d["net"] == "b" for d in copies]) > 0.8
    assert all(0 <= float(d["drop"]) <= 0.5 and 1 <= int(d["width"]) <= 64 for d in copies)


@pytest.mark.parametrize(("trials", "seeds"), [(None, 2), (9, 2), (8, 0)])
def test_seeds_of_the_best_given_point_come_next(trials: int | None, seeds: int) -> None:
    study = study_with([BAD, GOOD], trials=trials, anchors=lambda: {0: 1.0})
    drawn = [draw(study.ask()) for _ in range(5)]
    assert sum(each == BAD for each in drawn[:2]) == seeds  # the first of them has the lower value


@pytest.mark.parametrize("ended", [(), (0,), (1,)])
def test_seeds_are_of_the_point_given_first_while_one_runs(ended: tuple[int, ...]) -> None:
    study = study_with([])
    points = [BAD, GOOD]
    for point in points:
        study.enqueue_trial(point)
    trials = [study.ask(), study.ask()]
    assert [draw(trial) for trial in trials] == points
    for number in ended:
        study.tell(trials[number], 1.0)
    assert [draw(study.ask()) for _ in range(SEEDS - 1)] == [BAD] * (SEEDS - 1)


def test_a_copy_that_is_to_differ_does_even_at_an_end_of_a_single_range() -> None:
    study = study_with([], anchors=lambda: {0: 1.0})
    study.enqueue_trial({"lr": 1e-3})
    drawn = [study.ask().suggest_float("lr", 1e-4, 1e-3, log=True) for _ in range(200)]
    copies = [lr for n, lr in enumerate(drawn) if not is_learners(n)][SEEDS:]
    assert np.mean([lr == 1e-3 for lr in copies]) == pytest.approx(UNCHANGED, abs=0.1)


def test_a_draw_that_had_to_wait_is_no_given_point() -> None:
    study = study_with([])
    study.enqueue_trial(GOOD, user_attrs={DRAWN_AGAIN: True})
    assert draw(study.ask()) == GOOD
    study.tell(0, 1.0)
    assert all(draw(study.ask()) != GOOD for _ in range(STARTUP_TRIALS - 1))


def test_every_fourth_trial_is_the_learners() -> None:
    study = study_with([GOOD], anchors=lambda: {0: 1.0})
    drawn = [draw(study.ask()) for _ in range(120)]
    others = [d for n, d in enumerate(drawn, start=1) if is_learners(n)]
    assert np.std([np.log10(float(d["lr"])) for d in others]) > 0.6  # of 0.87 over all of the range


def test_points_that_run_are_copied_while_nothing_has_ended() -> None:
    study = study_with([])
    study.enqueue_trial(GOOD)
    first = study.ask()
    assert draw(first) == GOOD
    assert np.mean([draw(study.ask())["net"] == "b" for _ in range(2)]) >= 0.5


def test_without_any_trial_the_learner_draws() -> None:
    assert 1e-4 <= float(draw(study_with([]).ask())["lr"]) <= 1e-1


def test_the_best_are_copied_where_no_anchors_are_given() -> None:
    study = study_with([GOOD, GOOD, GOOD, BAD, BAD])
    nets = [draw(study.ask())["net"] for _ in range(60)]
    assert nets.count("b") > 35


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    study = StudyFolder(tmp_path)
    study.write_labels({"val": np.arange(IMAGES) % CLASSES})
    return study


def record(folder: StudyFolder, number: int, right: range, state: str = "complete") -> TrialRecord:
    """Write the logits of a trial that knows some images; the others are a guess."""
    labels = np.arange(IMAGES) % CLASSES
    logits = np.zeros((IMAGES, CLASSES), np.float32)
    logits[list(right), labels[list(right)]] = 4.0
    folder.trial(number).path.mkdir(parents=True)
    folder.trial(number).write_logits({"val": logits.astype(np.float16)})
    made = TrialRecord(study="s", number=number, config=TrialConfig(), state=TrialState(state))
    return made.model_copy(update={"sampler_number": number + 10})


def test_members_are_trials_that_know_what_others_do_not(folder: StudyFolder) -> None:
    records = [
        record(folder, 0, range(40)),
        record(folder, 1, range(30)),  # knows nothing that the first doesn't
        record(folder, 2, range(35, 60), state="pruned"),
        record(folder, 3, range(60), state="running"),
    ]
    members = EnsembleMembers(folder).weights(records)
    assert set(members) == {10, 12}
    assert sum(members.values()) == pytest.approx(1.0)


def test_logits_that_are_not_there_yet_are_read_later(folder: StudyFolder) -> None:
    early = TrialRecord(study="s", number=5, config=TrialConfig(), state=TrialState.COMPLETE)
    early = early.model_copy(update={"sampler_number": 3})
    members = EnsembleMembers(folder)
    assert members.weights([early]) == {}
    record(folder, 5, range(20))
    assert members.weights([early]) == {3: 1.0}
