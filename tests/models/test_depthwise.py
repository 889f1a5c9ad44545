"""Depthwise convolutions of a GPU: the same outputs, gradients and weights as torch's own."""

from __future__ import annotations

from copy import deepcopy

import pytest
import timm
import torch
from torch import Tensor, nn

from carray.models.depthwise import DepthwiseConv2d, replace_depthwise_convolutions


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("side", [3, 5, 7])
def test_outputs_and_gradients_are_the_same(side: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(8, 8, side, padding=side // 2, groups=8, bias=bias))
    quick = deepcopy(plain)
    replace_depthwise_convolutions(quick)
    assert isinstance(quick[0], DepthwiseConv2d)
    images, grad = torch.randn(2, 8, 9, 11), torch.randn(2, 8, 9, 11)
    found = [_passes(model, images.clone(), grad) for model in (plain, quick)]
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def _passes(model: nn.Module, images: Tensor, grad: Tensor) -> list[Tensor]:
    output = model(images.requires_grad_())
    output.backward(grad)
    gradients = [tensor.grad for tensor in (images, *model.parameters())]
    return [output, *(gradient for gradient in gradients if gradient is not None)]


def test_it_computes_in_autocasts_precision() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8))
    replace_depthwise_convolutions(model)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.randn(2, 8, 5, 5))
    assert output.dtype is torch.bfloat16
    output.float().sum().backward()
    dtypes = [each.grad.dtype for each in model.parameters() if each.grad is not None]
    assert dtypes == [torch.float32] * 2


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 16, 3, padding=1, groups=8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, stride=2),
        nn.Conv2d(8, 8, 3, padding=2, groups=8, dilation=2),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 4, padding=2, groups=8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8, padding_mode="reflect"),
    ],
)
def test_other_convolutions_stay(conv: nn.Conv2d) -> None:
    replace_depthwise_convolutions(nn.Sequential(conv))
    assert type(conv) is nn.Conv2d


def test_a_backbone_keeps_its_weights_by_name() -> None:
    backbone = timm.create_model("convnext_atto", num_classes=0)
    before = backbone.state_dict()
    replace_depthwise_convolutions(backbone)
    assert sum(isinstance(module, DepthwiseConv2d) for module in backbone.modules()) == 12
    assert backbone.state_dict().keys() == before.keys()
