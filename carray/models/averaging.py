"""`carray.predictions.averaging` on a device: members' log-probabilities become a model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

TINY = torch.finfo(torch.float32).tiny


def averaged_log_p(
    log_ps: Sequence[Tensor],
    weights: Sequence[float],
    space: Literal["probability", "logit", "vote", "stack"],
) -> Tensor:
    """Return the weighted mean of log-probabilities, each (B, C), as `average_log_p` does."""
    if len(log_ps) == 1:
        return log_ps[0]
    if space == "logit":
        return torch.log_softmax(_summed(log_ps, weights), dim=1)
    total = _summed([log_p.exp() for log_p in log_ps], weights)
    if space == "vote":
        classes = log_ps[0].shape[1]
        votes = [nn.functional.one_hot(log_p.argmax(dim=1), classes) for log_p in log_ps]
        total = (total + len(log_ps) * _summed(votes, weights)) / (len(log_ps) + 1)
    return total.clamp(min=TINY).log()


def stacked_log_p(log_ps: Sequence[Tensor], scale_MC: Tensor, offset_C: Tensor) -> Tensor:
    """Return the sums of a stack, (B, C): each class's by weights of its own."""
    return (torch.stack(tuple(log_ps), dim=1) * scale_MC).sum(dim=1) + offset_C


def _summed(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + value * weight
    return total
