"""Out of memory: seen, said, and freed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from carray.errors import ConfigError, TrialInfeasible
from carray.models.classifier import check_backbone
from carray.training import loop
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


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have steps of more images than that run out of memory, as a GPU's allocator says it."""
    step = loop._forward_backward

    def limit(images: int) -> None:
        def limited(live: Any, model: Any, batch: Any, *rest: Any) -> Any:
            if len(batch) > images:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return step(live, model, batch, *rest)

        monkeypatch.setattr(loop, "_forward_backward", limited)

    return limit


def test_half_the_batch_twice_is_tried_once_and_kept(
    tmp_path: Path, toy_data: Path, room_for: Callable[[int], None]
) -> None:
    config = small_config(device_batch_size=16, epochs=3, optimizer__name="sgd")
    whole, runner = run(new_runner(), tmp_path / "whole", toy_data, config, 1), new_runner()
    room_for(8)
    first = runner.run_epoch(order_of(tmp_path / "half", toy_data, config))
    assert first.compute is not None and first.compute.halved
    assert "in two halves" in str(first.compute)
    # the same images and steps, but for batch statistics and augmentation by halves
    assert first.metrics["train/loss"] == pytest.approx(whole[0]["train/loss"], rel=0.1)
    assert first.metrics["lr"] == whole[0]["lr"]
    later = new_runner().run_epoch(order_of(tmp_path / "half", toy_data, config, epoch=2))
    assert later.compute == first.compute
    room_for(4)
    again = "device_batch_size=16 .*; it was tried with half the batch and twice the accumulation"
    with pytest.raises(TrialInfeasible, match=again):
        runner.run_epoch(order_of(tmp_path / "half", toy_data, config, epoch=3))


def test_a_batch_that_has_no_halves_is_infeasible_at_once(
    tmp_path: Path, toy_data: Path, room_for: Callable[[int], None]
) -> None:
    room_for(1)
    config = small_config(device_batch_size=2, epochs=1)
    with pytest.raises(TrialInfeasible) as caught:
        new_runner().run_epoch(order_of(tmp_path, toy_data, config))
    assert "it was tried" not in str(caught.value)


@pytest.mark.parametrize("backbone", ["test_resnet", "small_car_cnn"])
def test_activations_computed_again_give_the_same_training(
    tmp_path: Path, toy_data: Path, backbone: str
) -> None:
    plain = small_config(backbone=backbone, epochs=1)
    again = plain.model_copy(update={"grad_checkpointing": True})
    kept, computed = (
        run(new_runner(), tmp_path / name, toy_data, config)[0]
        for name, config in (("kept", plain), ("computed", again))
    )
    assert computed["train/loss"] == pytest.approx(kept["train/loss"], rel=1e-5)


def test_a_backbone_without_gradient_checkpointing_is_refused() -> None:
    with pytest.raises(ConfigError, match="grad_checkpointing=true: the backbone 'dla34' has none"):
        check_backbone(small_config(backbone="dla34", grad_checkpointing=True))


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
