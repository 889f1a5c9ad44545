"""How images become what a classifier takes."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from carray.config import Compute, InputSpec
from carray.training.trial_state import build_numerics, disable_inplace_activations

CPU = torch.device("cpu")
SPEC = InputSpec(size=20, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shape", [(5, 3, 20, 20), (1, 3, 20, 20), (2, 3, 300, 300)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_are_normalised_alike_however_they_lie(
    channels_last: bool, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    numbers = build_numerics(SPEC, Compute(channels_last=channels_last), CPU)
    raw = torch.randint(0, 256, shape, dtype=torch.uint8).to(dtype)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (SPEC.mean, SPEC.std))
    wanted = (raw.float() / 255 - mean) / std
    for given in (raw, raw.contiguous(memory_format=torch.channels_last)):
        done = numbers.normalise(given)
        assert done.dtype == torch.float32
        assert done.is_contiguous(memory_format=numbers.memory_format)
        assert torch.allclose(done, wanted, atol=1e-5)


def gradient_and_clones(model: torch.nn.Module, images: Tensor) -> tuple[Tensor, int]:
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        model(images).square().sum().backward()
    gradient = next(model.parameters()).grad
    assert gradient is not None
    return gradient, sum(e.count for e in watched.key_averages() if e.key == "aten::clone")


@pytest.mark.parametrize("name", ["mobilenetv2_035", "efficientnet_b0", "mobilenetv3_small_050"])
def test_activations_spare_their_copies_and_the_gradient_stays(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3).eval()
    images = torch.randn(2, 3, 32, 32)
    before, copies = gradient_and_clones(copy.deepcopy(model), images)
    disable_inplace_activations(model)
    after, fewer = gradient_and_clones(model, images)
    assert torch.equal(before, after)
    assert copies - fewer >= 15
