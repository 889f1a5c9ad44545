"""Which trials are hopeless: no complete trial's improvement would bring them near the best."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from carray.config import build_config
from carray.metrics import VAL_LOG_LOSS, VAL_TOP1
from carray.records import TrialRecord, TrialState
from carray.search.request import StudyRequest
from carray.search.run import run_study
from carray.search.scheduling.hopeless import HopelessRule
from tests.search.studies import Listener, LocalCluster, check_left, local, local_tune, request

__all__ = ["local", "local_tune"]
WHOLE = [2.4, 2.0, 1.7, 1.5, 1.4, 1.3, 1.25, 1.2]  # a complete trial's log-loss
SPACE = """
version: 1
fixed: {epochs: 6, image_size: 32, pretrained: false, backbone: test_resnet}
search: {optimizer.lr: {loguniform: [1e-6, 3e-2]}}
start: [{optimizer.lr: 5e-3}, {optimizer.lr: 4e-3}, {optimizer.lr: 1e-6}]
"""


def rule(*curves: list[float], metric: str = VAL_LOG_LOSS) -> HopelessRule:
    made = HopelessRule(metric)
    for curve in curves:
        made.learn("kind", curve)
    return made


@pytest.mark.parametrize(
    ("values", "is_hopeless"),
    [
        ([2.4], False),  # one epoch says nothing
        ([2.4, 2.3], False),  # 2.3 x (1.2 / 2.0)^2 is 0.83
        ([2.4, 2.3, 2.3, 2.3], True),  # 2.3 x (1.2 / 1.5)^2 is 1.47, over 1.44
        ([2.4, 2.3, 2.3, 2.2], False),
        ([2.4, 2.2, 9.9, 9.9], False),  # its best epoch so far counts
        ([9.0, 8.0], True),
        ([math.nan, math.nan, math.nan, math.nan], False),
        ([9.0] * 8, False),  # its last epoch is done
    ],
)
def test_a_trial_is_hopeless_if_twice_the_best_improvement_leaves_it_far_off(
    values: list[float], is_hopeless: bool
) -> None:
    assert rule(WHOLE).is_hopeless("kind", values, 8) is is_hopeless


def test_a_small_network_need_not_come_near_a_large_one() -> None:
    made = HopelessRule(VAL_LOG_LOSS)
    made.learn("kind", WHOLE, {"latency": 9.0})
    lost = [2.4, 2.3, 2.3, 2.3]
    assert made.is_hopeless("kind", lost, 8, {"latency": 9.0})
    assert not made.is_hopeless("kind", lost, 8, {"latency": 3.0})
    made.learn("kind", [value + 0.1 for value in WHOLE], {"latency": 3.0})
    assert made.is_hopeless("kind", [9.0, 8.0], 8, {"latency": 3.0})


def test_only_complete_curves_of_the_same_kind_and_longer_count() -> None:
    lost = [9.0, 9.0, 9.0, 9.0]
    assert not rule().is_hopeless("kind", lost, 8)
    assert not rule(WHOLE).is_hopeless("another", lost, 8)
    assert not rule(WHOLE[:4]).is_hopeless("kind", lost, 8), "one that stopped early by itself"
    late = [9.0] * 7 + [1.2]
    assert not rule(WHOLE, late).is_hopeless("kind", lost, 8), "one such came from there"


def test_shares_are_judged_by_what_they_lack() -> None:
    top1 = rule([0.2, 0.4, 0.6, 0.7], metric=VAL_TOP1)
    assert top1.is_hopeless("kind", [0.0, 0.0, 0.0], 4)
    assert not top1.is_hopeless("kind", [0.0, 0.4, 0.2], 4)


def test_trials_of_another_length_or_start_have_other_curves() -> None:
    records = {
        name: TrialRecord(
            study="s",
            number=0,
            state=TrialState.COMPLETE,
            config=build_config({"epochs": 8, **config}),
            epochs=tuple({VAL_LOG_LOSS: loss} for loss in losses),
        )
        for name, config, losses in (
            ("whole", {}, WHOLE),
            ("lost", {"backbone": "resnet50"}, [9.0] * 4),
            ("longer", {"epochs": 9}, [9.0] * 4),
            ("scratch", {"pretrained": False}, [9.0] * 4),
            ("frozen", {"finetune.policy": "head_only"}, [9.0] * 4),
        )
    }
    made = HopelessRule(VAL_LOG_LOSS, [records["whole"]])
    assert [name for name, record in records.items() if made.ends(record)] == ["lost"]
    patient = HopelessRule(VAL_LOG_LOSS, [records["whole"]], least_epochs=5)
    assert not patient.ends(records["lost"]), "the grace that somebody asked for"
    unfinished = records["whole"].model_copy(update={"state": TrialState.PRUNED})
    assert not HopelessRule(VAL_LOG_LOSS, [unfinished]).ends(records["lost"])


@pytest.mark.parametrize(
    ("scheduler", "epochs"), [("asha", 4), ("median", 4), ("none", 6), ("grace", 5)]
)
def test_a_short_study_ends_its_hopeless_trial_under_any_scheduler_but_none(
    local: LocalCluster, toy_data: Path, tmp_path: Path, scheduler: str, epochs: int
) -> None:
    how = (
        {"scheduler": "median", "grace_epochs": 5}
        if scheduler == "grace"
        else {"scheduler": scheduler}
    )
    wanted: StudyRequest = request(toy_data, tmp_path, SPACE, trials=3, concurrent=1, **how)
    folder = run_study(wanted, Listener())
    check_left(folder)
    done = [len(record.epochs) for record in folder.records()]
    assert done == [6, 6, epochs]
    if scheduler != "none":
        assert folder.records()[2].reason == f"hopeless after epoch {epochs}"
