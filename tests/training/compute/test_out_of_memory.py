"""Out of memory: seen, said, and freed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from carray.errors import TrialInfeasible
from carray.training.compute.out_of_memory import (
    AgreedInfeasible,
    PeakMemory,
    agree_on_memory,
    is_out_of_memory,
)
from carray.training.ranks import SoloRanks
from tests.training.orders import little_memory, new_runner, order_of, run, small_config

CPU = torch.device("cpu")


def test_the_allocators_own_error_is_out_of_memory() -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        torch.empty(2**55)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(KeyError("out of memory"))


def test_a_trial_too_large_is_infeasible_and_says_the_cure(tmp_path: Path, toy_data: Path) -> None:
    large = small_config(backbone="resnet10t", image_size=512, device_batch_size=64, epochs=1)
    runner = new_runner()
    with (
        little_memory(),
        pytest.raises(TrialInfeasible, match=r"device_batch_size=64 at image_size=512; lower"),
    ):
        runner.run_epoch(order_of(tmp_path, toy_data, large))
    assert runner.live is None
    assert run(runner, tmp_path / "next", toy_data, small_config(epochs=1))


class OtherRankFails(SoloRanks):
    """Two ranks, of which the other has too little memory."""

    world_size = 2

    def any(self, flag: bool) -> bool:
        return True


def test_all_ranks_raise_where_one_has_too_little_memory() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.AdaptiveAvgPool2d(1)
    )
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(AgreedInfeasible):
        agree_on_memory(model, small_config(), CPU, 4, OtherRankFails())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_process_counts_where_there_is_no_device() -> None:
    memory = PeakMemory(CPU)
    memory.sample()
    assert 0.05 < memory.largest_gib(SoloRanks()) < 100
