"""Scores by class are scikit-learn's, with intervals; calibration and levels are told."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from carray.data.label_parts import read_label_parts
from carray.predictions.calibration import calibration_of
from carray.predictions.levels import LevelReader, level_scores, mistake_kinds
from carray.predictions.logits import log_softmax
from carray.predictions.per_class import per_class_scores
from carray.predictions.scores import fitted_temperature

CARS = ("Audi TT Coupe 2008", "Audi TT Coupe 2012", "Audi TT Sedan 2012", "Audi S4 Sedan 2012")
CARS = (*CARS, "BMW M3 Coupe 2012")


def made_up(images: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - 1, images)  # the last class has no image
    wrong = rng.integers(0, classes, images)
    return np.where(rng.random(images) < 0.6, labels, wrong), labels


@pytest.mark.parametrize("images", [12, 400])
def test_classes_and_means_are_those_of_scikit_learn(images: int) -> None:
    answers, labels = made_up(images, 6)
    found = per_class_scores(answers, labels, list("abcdef"))
    every = precision_recall_fscore_support(labels, answers, labels=range(6), zero_division=0)
    for place, own in enumerate(found.classes):
        known = [np.nan_to_num(x.value) for x in (own.precision, own.recall, own.f1)]
        assert known == pytest.approx([column[place] for column in every[:3]])
        assert all(x.low <= x.value <= x.high for x in (own.f1,))
        assert own.images == every[3][place]
    for average, mean in (("macro", found.macro), ("weighted", found.weighted)):
        theirs = precision_recall_fscore_support(labels, answers, average=average, zero_division=0)
        ours = (mean.precision, mean.recall, mean.f1)
        assert [x.value for x in ours] == pytest.approx(theirs[:3])
        assert all(0 <= x.low <= x.value <= x.high <= 1 for x in ours)
    assert found.worst.recall.value == min(x.recall.value for x in found.classes[:5])


def test_a_class_without_images_or_answers_has_no_share() -> None:
    found = per_class_scores(np.array([0, 0, 1]), np.array([0, 0, 1]), ["a", "b", "c"])
    absent = found.classes[2]
    assert np.isnan([absent.precision.value, absent.recall.value]).all()
    assert found.macro.recall.value == found.balanced_accuracy.value == 1


def test_a_temperature_is_found_and_calibration_error_tells_that_it_is_needed() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 5)) * 1.5
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # drawn by their odds
    true, sharp = calibration_of(log_softmax(logits), labels), log_softmax(2 * logits)
    assert true.error < true.by_chance < 0.04
    told = calibration_of(sharp, labels)
    assert told.error > 3 * told.by_chance
    assert told.confidence > np.mean(sharp.argmax(axis=1) == labels) + 0.1
    assert fitted_temperature(sharp, labels) == pytest.approx(2, rel=0.07)
    assert sum(each.images for each in told.bins) == 3000


def test_mistakes_are_told_apart_by_the_coarsest_part_that_is_wrong() -> None:
    parts = read_label_parts(CARS)
    assert parts is not None
    labels = np.array([0, 0, 1, 3, 0])
    answers = np.array([0, 1, 2, 0, 4])
    assert mistake_kinds(parts, answers, labels) == ["", "year", "body", "model", "make"]
    scores, otherwise = level_scores(parts, answers, labels)
    assert [(one.level, one.wrong) for one in scores] == [
        *(("make", 1), ("model", 1), ("body", 1), ("year", 1))
    ]
    assert [one.accuracy.value for one in scores] == pytest.approx([0.8, 0.6, 0.4, 0.2])
    assert [one.groups for one in scores] == [2, 3, 4, 5]
    assert otherwise == 0


def test_an_answer_is_as_deep_as_it_is_sure() -> None:
    parts = read_label_parts(CARS)
    assert parts is not None
    p = np.array(
        [
            [0.90, 0.02, 0.03, 0.03, 0.02],
            [0.45, 0.45, 0.05, 0.03, 0.02],
            [0.40, 0.10, 0.40, 0.05, 0.05],
            [0.30, 0.00, 0.10, 0.50, 0.10],
            [0.25, 0.10, 0.05, 0.05, 0.55],
        ],
        np.float32,
    )
    found = LevelReader(parts, threshold=0.8).answers(p)
    assert [one.text for one in found] == [
        "Audi TT Coupe 2008",
        "Audi TT Coupe, year unsure",
        "Audi TT, body and year unsure",
        "Audi, model, body and year unsure",
        "unsure",
    ]
    assert [one.level for one in found] == ["year", "body", "model", "make", ""]
    at_make = LevelReader(parts, level="make").answers(p)
    assert [one.text for one in at_make] == ["Audi"] * 4 + ["BMW"]
    assert at_make[3].probability == pytest.approx(0.9)
