"""Depthwise convolutions that train faster on a GPU; the same weights, the same results.

cuDNN's kernel for their gradient by the input takes 2.5 times as long as the forward pass, of which
it is the mirror image: of the gradient, with every filter turned by half a turn.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution of stride 1, padded so that the image keeps its size."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if torch.is_autocast_enabled(input.device.type):
            dtype = torch.get_autocast_dtype(input.device.type)
            input, weight = input.to(dtype), weight.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        output: Tensor = _Depthwise.apply(input, weight, bias)
        return output


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.has_bias = bias is not None
        return _convolved(images, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (grad,) = grads
        images, weight = ctx.saved_tensors
        by_images, by_weight, by_bias = ctx.needs_input_grad
        _, weight_grad, bias_grad = torch.ops.aten.convolution_backward(
            grad,
            images,
            weight,
            [weight.shape[0]] if ctx.has_bias else None,
            [1, 1],
            _padding(weight),
            [1, 1],
            False,
            [0, 0],
            weight.shape[0],
            [False, by_weight, by_bias],
        )
        images_grad = _convolved(grad, weight.flip(2, 3), None) if by_images else None
        return images_grad, weight_grad, bias_grad


def _convolved(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.conv2d(images, weight, bias, padding=_padding(weight), groups=weight.shape[0])


def _padding(weight: Tensor) -> list[int]:
    return [side // 2 for side in weight.shape[2:]]


def replace_depthwise_convolutions(model: nn.Module) -> None:
    """Let the depthwise convolutions of `model` that can train so do so."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_plain_depthwise(module):
            module.__class__ = DepthwiseConv2d


def _is_plain_depthwise(conv: nn.Conv2d) -> bool:
    same = tuple(side // 2 for side in conv.kernel_size)
    return (
        conv.groups == conv.in_channels == conv.out_channels > 1
        and all(side % 2 and side > 1 for side in conv.kernel_size)
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding == same
        and conv.padding_mode == "zeros"
    )
