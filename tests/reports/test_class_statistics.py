"""How many images classes have is told, and where that is uneven what helps."""

from __future__ import annotations

import math

from carray.data.summary import ClassCount, class_statistics
from carray.reports.class_statistics import statistics_lines


def counts(*trained: int) -> list[ClassCount]:
    return [
        ClassCount(name=str(n), splits={"train": n, "val": 2}, total=n + 2, excluded=0)
        for n in trained
    ]


def test_ends_mean_and_histogram_add_up() -> None:
    found = class_statistics(counts(10, 12, 12, 30, 40))
    assert (found.mean, found.median) == (22.8, 14)
    assert (found.smallest, found.largest, found.ratio) == (12, 42, 4.0)
    assert sum(classes for _, _, classes in found.histogram) == 5
    assert (found.histogram[0][0], len(found.histogram)) == (12, 8)
    lines = statistics_lines(found)
    assert max(map(len, lines)) <= 100
    assert lines[1].startswith("images a class, all splits together: mean 22.8, median 14")
    assert lines[2].split() == ["images", "classes"]
    assert "the classes are imbalanced in training (4.0 : 1):" in lines
    assert any("loss.class_weights" in line for line in lines)


def test_even_classes_need_no_cure() -> None:
    found = class_statistics(counts(20, 20, 20))
    assert found.histogram == [(22, 22, 3)]
    assert not any("imbalanced" in line for line in statistics_lines(found))


def test_a_class_without_training_images_is_told() -> None:
    found = class_statistics(counts(0, 20))
    assert math.isinf(found.ratio)
    assert any("(no training image)" in line for line in statistics_lines(found))
