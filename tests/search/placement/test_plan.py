"""The plan: what fits, what is refused, and the numbers in the refusal."""

from __future__ import annotations

import pytest

from carray.errors import PlanError
from carray.lanes.lane import LaneShape
from carray.search.placement.plan import TRIAL_CPU, gpus_asked, make_plan

LAPTOP = [{"CPU": 2.0}]
CLUSTER = [{"CPU": 96.0, "GPU": 8.0}, {"CPU": 96.0, "GPU": 8.0}]


@pytest.mark.parametrize("workers", [1, 2])
def test_lanes_leave_room_for_the_thin_trials_beside_them(workers: int) -> None:
    plan = make_plan(LAPTOP, trials=12, workers=workers)
    assert plan.lanes == 2 // workers
    assert plan.total_cpus + TRIAL_CPU * plan.lanes <= 2


def test_every_gpu_gets_a_lane_and_its_share_of_the_cpus() -> None:
    plan = make_plan(CLUSTER, trials=100)
    assert (plan.lanes, plan.gpus_per_worker, plan.cpus_per_worker) == (16, 1.0, 11.0)


def test_small_trials_are_packed_on_a_gpu() -> None:
    assert make_plan(CLUSTER, trials=100, gpus_per_trial=0.25).lanes == 64
    assert make_plan(CLUSTER, trials=100, gpus_per_trial=0.4).lanes == 32  # two on each


def test_no_more_lanes_are_planned_than_trials_are_left() -> None:
    assert make_plan(CLUSTER, trials=3).lanes == 3


def test_refits_join_lanes_into_wider_ones() -> None:
    plan = make_plan(CLUSTER, trials=100).widened(3)
    assert (plan.lanes, plan.workers) == (3, 5)
    assert make_plan(LAPTOP, trials=9).widened(1).workers == 2


def test_ranks_that_share_a_gpu_are_not_joined() -> None:
    plan = make_plan(CLUSTER, trials=100, gpus_per_trial=0.5)
    assert plan.widened(2).workers == 1
    assert plan.serves(plan.widened(2)) and not plan.widened(2).serves(plan)


def test_lanes_of_other_ranks_are_other_lanes() -> None:
    plan = make_plan(CLUSTER, trials=100)
    assert plan.serves(plan) and not plan.serves(plan.widened(3))


def test_gpus_a_trial_are_a_number_or_auto() -> None:
    assert [gpus_asked(text) for text in (None, "auto", "0.25")] == [None, "auto", 0.25]
    with pytest.raises(PlanError, match="'many' must be a number of GPUs, or auto"):
        gpus_asked("many")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 4}, "4 x 1 CPU"),
        ({"gpus_per_trial": 1.0}, "0 GPU"),
        ({"concurrent": 5}, "--lanes 2 or less"),
        ({"workers": 2, "gpus_per_trial": 1.0}, "can't share a GPU"),
        ({"workers": 0}, "at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(options: dict, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        make_plan(LAPTOP, trials=12, **options)


def test_the_plan_is_said_in_lines_of_100_columns() -> None:
    lines = make_plan(CLUSTER, trials=100, workers=4).lines(trials=100, max_epochs=30)
    assert all(len(line) <= 100 for line in lines)
    assert "4 ranks (DDP)" in lines[0]


def test_lanes_that_hold_every_cpu_are_refused_since_trials_would_wait_for_ever() -> None:
    two = [{"CPU": 2.0}]
    with pytest.raises(PlanError, match=r"all of the cluster's 2 CPU, .* use 0\.95 or less"):
        make_plan(two, trials=4, workers=2, cpus_per_worker=1.0)
    assert make_plan(two, trials=4, workers=2, cpus_per_worker=0.95).lanes == 1
    assert make_plan(two, trials=4, cpus_per_worker=1.0, concurrent=1).lanes == 1


def test_more_lanes_may_be_asked_for_than_fit_and_of_a_shape_that_nothing_holds_yet() -> None:
    plan = make_plan(LAPTOP, trials=100, concurrent=64, min_lanes=1, cpus_per_worker=1.0)
    assert (plan.lanes, plan.most) == (1, 64)
    assert "1 at a time (of 64 wanted) " in plan.lines(100, 3)[0]
    assert make_plan(LAPTOP, trials=100).most == 0
    shape = {"gpus_per_trial": 2.0, "cpus_per_worker": 3.0}
    none = make_plan([{"CPU": 0.0}], trials=9, workers=2, concurrent=2, min_lanes=1, **shape)  # type: ignore[arg-type]
    assert (none.lanes, none.most) == (0, 2)
    assert none.bundles(2) == [{"CPU": 3.0, "GPU": 1.0}] * 4
    assert none.fit(CLUSTER) > 0
    for least in (0, 65):
        with pytest.raises(PlanError, match=rf"--min-lanes {least} must be at least 1 and at most"):
            make_plan(LAPTOP, trials=9, concurrent=64, min_lanes=least)


def test_a_rank_on_a_larger_node_computes_with_more_threads() -> None:
    small, large = {"CPU": 8.0, "GPU": 4.0}, {"CPU": 96.0, "GPU": 8.0}
    plan = make_plan([small, large], trials=100)
    assert (plan.lanes, plan.cpus_per_worker) == (12, 1.0)
    shape = LaneShape(1, plan.cpus_per_worker, 1.0, shares_cpus=plan.shares_cpus)
    assert [shape.threads_on(node) for node in (small, large, {})] == [1, 11, 1]
    asked = make_plan([small, large], trials=100, cpus_per_worker=2.0)
    assert not asked.shares_cpus, "what was asked for is kept"
