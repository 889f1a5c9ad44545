"""Collective operations of a trial's ranks: sum, agree, broadcast. Knows torch, not Ray."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Ranks(Protocol):
    """The ranks that train one trial; every method is called by all of them, in one order."""

    @property
    def rank(self) -> int:
        """This rank's index."""

    @property
    def world_size(self) -> int:
        """How many ranks there are."""

    def all_sum(self, values: Tensor) -> Tensor:
        """Return the sum over ranks of `values`, same shape and device everywhere."""

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's `value`."""

    def barrier(self) -> None:
        """Wait for every rank."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model whose gradients are averaged over ranks."""

    def any(self, flag: bool) -> bool:
        """Say whether `flag` is true on any rank."""


class SoloRanks:
    """One rank alone: the null object."""

    rank = 0
    world_size = 1

    def all_sum(self, values: Tensor) -> Tensor:
        """Return `values`."""
        return values

    def broadcast_object(self, value: Any) -> Any:
        """Return `value`."""
        return value

    def barrier(self) -> None:
        """Return at once."""

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return `model`."""
        return model

    def any(self, flag: bool) -> bool:
        """Return `flag`."""
        return flag


class TorchRanks:
    """The ranks of torch's default process group, which the caller has made (gloo or NCCL)."""

    def __init__(self) -> None:
        self.rank = torch.distributed.get_rank()
        self.world_size = torch.distributed.get_world_size()
        is_nccl = torch.distributed.get_backend() == "nccl"
        self._device = torch.device("cuda" if is_nccl else "cpu")

    def all_sum(self, values: Tensor) -> Tensor:
        """Return the sum over ranks, float64 kept."""
        total = values.detach().to(self._device, copy=True)
        torch.distributed.all_reduce(total)
        return total.to(values.device)

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's `value`; plain data between this study's own processes."""
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0, device=self._device)
        return values[0]

    def barrier(self) -> None:
        """Wait for every rank."""
        self.all_sum(torch.zeros(1))

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return DDP over `model`; buffers are averaged once an epoch, not sent every step."""
        on_gpu = next(model.parameters()).is_cuda
        with warnings.catch_warnings():  # the name that follows isn't in every torch yet
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            return nn.parallel.DistributedDataParallel(
                model,
                device_ids=[torch.cuda.current_device()] if on_gpu else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=bool(getattr(model, "may_skip_parameters", False)),
            )

    def any(self, flag: bool) -> bool:
        """Say whether `flag` is true on any rank."""
        return bool(self.all_sum(torch.tensor([float(flag)])).item() > 0)
