"""Cuts are stratified, keep groups whole, and repeat."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carray.data.preparation.splits import (
    assign_folds,
    blend_problem,
    require_images,
    split_stratified,
)
from carray.errors import DataError

SHARES = {"train": 0.6, "val": 0.15, "blend": 0.1, "test": 0.15}


def test_each_class_gets_its_shares() -> None:
    labels = np.repeat(np.arange(3), [20, 40, 100])
    parts = split_stratified(labels, np.arange(160), SHARES, seed=0)
    for label, count in enumerate((20, 40, 100)):
        found = {part: int(((parts == part) & (labels == label)).sum()) for part in SHARES}
        assert found == {part: round(share * count) for part, share in SHARES.items()}


def test_the_smallest_class_is_in_every_part() -> None:
    labels = np.repeat(np.arange(2), [4, 50])
    parts = split_stratified(labels, np.arange(54), SHARES, seed=0)
    assert sorted(parts[labels == 0]) == sorted(SHARES)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), num_groups=st.integers(8, 60))
def test_groups_are_never_torn_apart(seed: int, num_groups: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, num_groups, 120)
    labels = rng.integers(0, 4, 120)
    parts = split_stratified(labels, groups, SHARES, seed)
    folds = assign_folds(labels, groups, 3, seed)
    for group in np.unique(groups):
        assert len(set(parts[groups == group])) == 1
        assert len(set(folds[groups == group].tolist())) == 1
    assert 0.4 < (parts == "train").mean() < 0.8


def test_a_seed_repeats_and_another_differs() -> None:
    labels, groups = np.arange(200) % 5, np.arange(200)
    first = split_stratified(labels, groups, SHARES, seed=1)
    assert (first == split_stratified(labels, groups, SHARES, seed=1)).all()
    assert (first != split_stratified(labels, groups, SHARES, seed=2)).any()


def test_folds_are_of_one_size_over_all_classes() -> None:
    labels = np.repeat(np.arange(30), 11)
    folds = assign_folds(labels, np.arange(330), 5, seed=0)
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 1
    for label in range(30):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_classes_with_too_few_distinct_images_are_named() -> None:
    labels = np.array([0] * 5 + [1] * 3)
    groups = np.array([0, 1, 2, 3, 4, 5, 5, 6])
    require_images(labels, groups, ["Pip", "Jack"], ("train", "val"), "the splits")
    with pytest.raises(DataError, match=r"'Jack' \(2\)") as caught:
        require_images(labels, groups, ["Pip", "Jack"], ("train", "val", "test"), "the splits")
    assert "'Pip'" not in str(caught.value)


def test_of_many_short_classes_the_error_counts_the_rest() -> None:
    labels = np.arange(30)
    names = [f"class {n}" for n in range(30)]
    with pytest.raises(DataError, match="and 22 more"):
        require_images(labels, labels, names, ("train", "val"), "the splits")


def test_a_blend_split_must_be_worth_it() -> None:
    plenty = np.repeat(np.arange(2), 300)
    assert blend_problem(plenty, np.arange(600), 2, 0.1, 4) == ""
    few = np.repeat(np.arange(2), 50)
    assert "it would hold 10 images" in blend_problem(few, np.arange(100), 2, 0.1, 4)
    rare = np.concatenate([np.zeros(1000, int), np.ones(4, int)])
    assert "smallest class" in blend_problem(rare, np.arange(1004), 2, 0.1, 4)


def test_a_class_of_few_large_groups_is_in_every_part() -> None:
    groups = np.concatenate([np.repeat(np.arange(3), 5), np.arange(3, 60)])
    labels = np.concatenate([np.zeros(15, int), np.ones(57, int)])
    shares = {"train": 0.7, "val": 0.15, "test": 0.15}
    for seed in range(5):
        parts = split_stratified(labels, groups, shares, seed)
        assert {part: int((parts[:15] == part).sum()) for part in shares} == dict.fromkeys(
            shares, 5
        )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), num_groups=st.integers(12, 80))
def test_a_class_with_a_group_for_each_part_is_in_each(seed: int, num_groups: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, num_groups, 100)
    labels = rng.integers(0, 4, num_groups)[groups]
    parts = split_stratified(labels, groups, SHARES, seed)
    for label in range(4):
        enough = len(np.unique(groups[labels == label])) >= len(SHARES)
        assert not enough or set(parts[labels == label]) == set(SHARES)


def test_of_shared_groups_none_is_taken_from_a_class_that_needs_it() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1, 1, 1, 1])
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 4, 5])
    for seed in range(10):
        parts = split_stratified(labels, groups, {"train": 0.8, "val": 0.1, "test": 0.1}, seed)
        for label in (0, 1):
            assert set(parts[labels == label]) == {"train", "val", "test"}
        assert all(len(set(parts[groups == group])) == 1 for group in range(6))


def test_of_many_parts_the_error_names_the_first() -> None:
    with pytest.raises(DataError, match=r"fold 7, \.\.\.: 50 are needed\) in 'a' \(2\)"):
        require_images(
            np.zeros(2, int), np.arange(2), ["a"], [f"fold {n}" for n in range(50)], "the folds"
        )
