"""A draw that needs as much memory as a trial that had too little of it is drawn again."""

from __future__ import annotations

from pathlib import Path

import pytest

from carray.config import Compute, build_config
from carray.records import TrialRecord, TrialState
from carray.search.ledger import LARGE_DRAWS
from carray.search.memory_limits import needs_as_much, too_large
from carray.search.sampling.samplers import SAMPLERS
from tests.opened import stored_trials
from tests.search.test_ledger import SPACE, open_ledger, row

SIZES = f"""{SPACE}
  - {{image_size: 96, device_batch_size: 64}}
  - {{image_size: 128, device_batch_size: 64}}
""".replace("search:", "search:\n  image_size: {choice: [64, 96, 128]}", 1).replace(
    "search:", "search:\n  device_batch_size: {choice: [16, 32, 64]}", 1
)


@pytest.mark.parametrize(
    ("changes", "needs"),
    [
        ({}, True),
        ({"image_size": 256, "optimizer.lr": 0.1, "seed": 9, "head.seed": 3}, True),
        ({"ema_decay": 0.9, "dropout": 0.5, "epochs": 50}, True),
        ({"image_size": 192}, False),
        ({"image_size": 512, "device_batch_size": 16}, False),
        ({"grad_checkpointing": True}, False),
        ({"backbone": "resnet18"}, False),
        ({"finetune.policy": "head_only"}, False),
        ({"precision": "bf16"}, False),
    ],
)
def test_more_of_one_thing_and_less_of_another_cannot_be_compared(
    changes: dict[str, object], needs: bool
) -> None:
    known = {"backbone": "resnet50", "image_size": 224, "device_batch_size": 32}
    assert needs_as_much(build_config(known | changes), build_config(known)) is needs


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("gp", "cmaes")])
def test_what_cannot_fit_is_not_opened_again_and_optuna_is_told(
    tmp_path: Path, sampler: str
) -> None:
    ledger, _ = open_ledger(tmp_path, trials=30, sampler_name=sampler, text=SIZES)
    said: list[str] = []
    ledger.say = said.append
    first, second = ledger.ask(), ledger.ask()
    assert first is not None and second is not None
    assert (second.config.image_size, second.config.device_batch_size) == (96, 64)
    ledger.end(second.number, TrialState.INFEASIBLE, "out of memory")
    for _ in range(20):
        record = ledger.ask()
        assert record is not None
        assert record.config.image_size == 64 or record.config.device_batch_size < 64
        ledger.report(record.number, 1, row(1.0 + record.number / 100), {})
        ledger.end(record.number, TrialState.COMPLETE)
    assert said == [
        f"trial 0001 ran out of memory ({second.config.backbone}, 96 px, device_batch_size 64): "
        "what needs as much is drawn again"
    ]
    refused = [t for t in stored_trials(ledger.folder) if t.constraints and t.number != 1]
    assert refused[0].params["image_size"] == 128, "the point that waited is refused too"
    assert all(t.state.name == "PRUNED" for t in refused)
    again, _ = open_ledger(tmp_path, trials=30, sampler_name=sampler, text=SIZES)
    assert len(again.records) == 22


def test_what_fitted_elsewhere_whole_is_no_limit() -> None:
    sizes = {"backbone": "resnet50", "image_size": 96}
    failed, larger = (
        TrialRecord(study="s", number=n, config=build_config({**sizes, "device_batch_size": batch}))
        for n, batch in enumerate((32, 64))
    )
    trained = larger.model_copy(update={"epochs": (row(1.0),), "compute": Compute()})
    halved = trained.model_copy(update={"compute": Compute(halved=True)})
    assert too_large(larger.config, [failed], [larger, halved]) is failed
    assert too_large(larger.config, [failed], [larger, halved, trained]) is None


def test_a_space_with_one_size_tries_on(tmp_path: Path) -> None:
    ledger, _ = open_ledger(tmp_path)
    for number in range(3):
        record = ledger.ask()
        assert record is not None
        assert record.sampler_number == number
        ledger.end(record.number, TrialState.INFEASIBLE)


def test_what_every_draw_needs_is_tried_in_the_end(tmp_path: Path) -> None:
    only = SPACE.replace("search:", "search:\n  ema_decay: {choice: [0.9, 0.99]}")
    ledger, _ = open_ledger(tmp_path, text=only)
    for _ in range(2):
        record = ledger.ask()
        assert record is not None
        ledger.end(record.number, TrialState.INFEASIBLE)
    assert record.sampler_number == LARGE_DRAWS
