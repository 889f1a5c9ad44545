"""Sets hold the right class as often as they promise, on images that chose no threshold."""

from __future__ import annotations

import numpy as np
import pytest

from carray.predictions.conformal import (
    METHODS,
    Method,
    choose,
    coverage_of,
    have_own,
    measure,
    nonconformity,
    sets_of,
    threshold,
    thresholds,
)
from carray.predictions.logits import log_softmax
from carray.typing import Float32s, Labels

CLASSES = 8


def drawn(count: int, seed: int, scale: float = 2.0) -> tuple[Float32s, Labels]:
    """Return probabilities of a fair, overconfident model, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, CLASSES)) * 1.5
    chances = np.exp(log_softmax(logits))
    labels = np.array([rng.choice(CLASSES, p=row / row.sum()) for row in chances.astype(float)])
    return np.exp(log_softmax(logits * scale)), labels.astype(np.int64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("wanted", [0.8, 0.95])
def test_new_images_are_covered(method: Method, wanted: float) -> None:
    p, labels = drawn(800, 0)
    limit = threshold(p, labels, method, wanted)
    new_p, new_labels = drawn(4000, 1)
    found = coverage_of(sets_of(new_p, method, limit), new_labels, method, wanted)
    assert wanted - 0.03 < found.found.value < wanted + 0.06
    assert 1 <= found.mean_size < CLASSES


@pytest.mark.parametrize("method", METHODS)
def test_the_coverage_that_is_told_is_of_images_left_out(method: Method) -> None:
    p, labels = drawn(300, 2)
    told = measure(p, labels, method, 0.9)
    assert told.images == 300
    assert told.found.low < 0.9 < told.found.high + 0.05


@pytest.mark.parametrize("method", METHODS)
def test_a_class_of_many_images_is_covered_as_often_as_others(method: Method) -> None:
    """The first class is taken for the second half of the time; the last has too few images."""

    def images(seed: int) -> tuple[Float32s, Labels]:
        p, labels = drawn(3000, seed)
        is_odd = (labels == 0) & (np.arange(len(p)) % 2 == 0)
        p[is_odd, :2] = p[is_odd, 1::-1]
        kept = (labels < CLASSES - 1) | (np.arange(len(p)) % 40 == 0)
        return p[kept], labels[kept]

    p, labels = images(5)
    assert have_own(labels, CLASSES, 0.9).tolist() == [True] * (CLASSES - 1) + [False]
    new_p, new_labels = images(6)
    found = {}
    for name, limit in (
        ("one", threshold(p, labels, method, 0.9)),
        ("own", thresholds(p, labels, method, 0.9)),
    ):
        held = sets_of(new_p, method, limit)[np.arange(len(new_p)), new_labels]
        found[name] = [float(held[new_labels == place].mean()) for place in range(CLASSES - 1)]
    assert found["one"][0] < 0.84
    assert min(found["own"]) > 0.84


def test_odd_classes_by_hand() -> None:
    p = np.array([[0.2, 0.5, 0.3]], np.float32)
    assert nonconformity(p, "lac")[0] == pytest.approx([0.8, 0.5, 0.7])
    assert nonconformity(p, "aps")[0] == pytest.approx([1.0, 0.5, 0.8])
    assert sets_of(p, "lac", 0.7)[0].tolist() == [False, True, True]
    assert sets_of(p, "aps", 0.1)[0].tolist() == [False, True, False]  # never empty


def test_few_images_promise_nothing() -> None:
    p, labels = drawn(10, 3)
    assert threshold(p, labels, "lac", 0.95) == float("inf")
    assert sets_of(p, "lac", float("inf")).all()


def test_the_smaller_sets_are_chosen() -> None:
    p, labels = drawn(400, 4)
    found = [measure(p, labels, method, 0.9) for method in METHODS]
    assert choose(found).mean_size == min(each.mean_size for each in found)
