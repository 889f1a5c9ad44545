"""How images become what a classifier takes."""

from __future__ import annotations

import pytest
import torch

from carray.config import InputSpec, build_config
from carray.training.live import arithmetic

CPU = torch.device("cpu")
SPEC = InputSpec(size=20, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.mark.parametrize("is_conv_net", [True, False])
@pytest.mark.parametrize("shape", [(5, 3, 20, 20), (1, 3, 20, 20), (2, 3, 300, 300)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_are_normalised_alike_however_they_lie(
    is_conv_net: bool, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    numbers = arithmetic(build_config({}), SPEC, is_conv_net, CPU)
    raw = torch.randint(0, 256, shape, dtype=torch.uint8).to(dtype)
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (SPEC.mean, SPEC.std))
    wanted = (raw.float() / 255 - mean) / std
    for given in (raw, raw.contiguous(memory_format=torch.channels_last)):
        done = numbers.normalise(given)
        assert done.dtype == torch.float32
        assert done.is_contiguous(memory_format=numbers.memory_format)
        assert torch.allclose(done, wanted, atol=1e-5)
