"""What a trial takes of its device's memory: the real loop, on blank images, of every policy."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from carray.training.compute import memory_footprint
from carray.training.compute.memory_footprint import footprint_gib
from carray.training.compute.out_of_memory import is_crowded
from tests.training.orders import small_config

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"finetune__policy": "gradual", "epochs": 4},
        {"finetune__policy": "head_only"},
        {"ema_decay": 0.9, "augment__mixup": 0.2},
        {"head__kind": "ml_decoder", "head__decoder_width": 32},
    ],
)
def test_a_trial_of_any_kind_is_measured(params: dict[str, Any]) -> None:
    assert 0 < footprint_gib(small_config(**params), 30, CPU) < 100


def test_more_memory_than_there_is_is_infinite(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(memory_footprint, "train_one_epoch", out_of_memory)
    assert footprint_gib(small_config(), 4, CPU) == float("inf")


def test_a_cpu_is_never_crowded() -> None:
    assert not is_crowded(CPU)
