"""Widens a classifier's head by one class without changing its logits of the old ones.

The new class's weights are imprinted (Qi et al., "Low-Shot Learning with Imprinted Weights", CVPR
2018): they point from the mean of what the last layer sees of old classes to that of the new one,
are as long as the old classes' weights, and say of the old mean what those do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, cat, nn
from torch.nn.functional import normalize

from carray.config import HeadConfig

DECODER = "head.inner"
QUERIES = f"{DECODER}.query_embed.weight"  # (G, D)
POOLING = f"{DECODER}.duplicate_pooling"  # (G, D, F): group g, column f is class g * F + f
POOLING_BIAS = f"{DECODER}.duplicate_pooling_bias"  # (C,)

State = Mapping[str, Tensor]


def expanded_head_config(head: HeadConfig, state: State) -> HeadConfig:
    """Return the configuration of a head that `expand_head` has made.

    A linear probe becomes the linear layer that it is; an ML-Decoder has its own number of groups.
    """
    if head.kind == "linear_probe":
        return head.model_copy(update={"kind": "linear"})
    if head.kind == "ml_decoder":
        return head.model_copy(update={"groups": len(state[QUERIES])})
    return head


@dataclass
class ClassMeans:
    """Means of what a head's last layer sees, of old classes' images and of the new class's.

    (D,) for a linear layer, (G, D) for an ML-Decoder: its group queries see each their own.
    """

    sums: dict[bool, Tensor] = field(default_factory=dict)
    counts: dict[bool, int] = field(default_factory=dict)

    def add(self, inputs: Tensor, are_new: Tensor) -> None:
        """Take what the last layer saw of some images, (B, ...), and whether each is new, (B,)."""
        for is_new in (False, True):
            own = inputs[are_new == is_new].double()
            self.sums[is_new] = self.sums.get(is_new, torch.zeros(())) + own.sum(0)
            self.counts[is_new] = self.counts.get(is_new, 0) + len(own)

    def of(self, *, new: bool) -> Tensor:
        """Return the mean over the new class's images, or over the old classes'."""
        return (self.sums[new] / self.counts[new]).float()


@contextmanager
def last_inputs(head: nn.Module, num_classes: int) -> Iterator[list[Tensor]]:
    """Yield a list that takes, at every call of `head`, what its last layer sees of the batch."""
    seen: list[Tensor] = []
    decoder = getattr(head, "inner", None)
    if decoder is not None:  # its groups' states come first, then images
        hook = decoder.decoder.register_forward_hook(
            lambda _module, _inputs, out: seen.append(out.transpose(0, 1).float().cpu())
        )
    else:
        layer = head.get_submodule(_last_layer(head.state_dict(), num_classes))
        hook = layer.register_forward_pre_hook(
            lambda _module, inputs: seen.append(inputs[0].float().cpu())
        )
    try:
        yield seen
    finally:
        hook.remove()


def expand_head(state: State, num_classes: int, means: ClassMeans) -> dict[str, Tensor]:
    """Return a classifier's state with one class more, the last; old classes keep their weights."""
    if POOLING in state:
        return _expand_decoder(state, num_classes, means)
    layer = _last_layer({k: v for k, v in state.items() if k.startswith("head.")}, num_classes)
    weight_CD, bias_C = state[f"{layer}.weight"].float(), state[f"{layer}.bias"].float()
    old_D = means.of(new=False)
    usual = (weight_CD @ old_D + bias_C).mean()
    row_D, bias = _imprinted(weight_CD, old_D, means.of(new=True), usual)
    return {
        **state,
        f"{layer}.weight": cat([weight_CD, row_D[None]]),
        f"{layer}.bias": cat([bias_C, bias[None]]),
    }


def _last_layer(head: State, num_classes: int) -> str:
    """Return the name of a head's last linear layer, as in `1`."""
    names = [name for name in head if name.endswith(".weight")]
    last = [name for name in names if len(head[name]) == num_classes and head[name].ndim == 2][-1]
    return last.removesuffix(".weight")


def _imprinted(
    weight_CD: Tensor, old_D: Tensor, new_D: Tensor, usual: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the new class's weights and bias; of the old mean it says `usual`."""
    common_D = weight_CD.mean(0)
    length = (weight_CD - common_D).norm(dim=1).mean()
    row_D = common_D + length * normalize(new_D - old_D, dim=0)
    return row_D, usual - row_D @ old_D


def _expand_decoder(state: State, num_classes: int, means: ClassMeans) -> dict[str, Tensor]:
    """Grow an ML-Decoder by a free column of a group, or by a group.

    A new group's query is a copy of that under which the new class differs most from the old ones.
    Queries don't see each other, so old classes' logits stay what they were.
    """
    queries_GD, pooling_GDF, copies = _append_rows(state[QUERIES], state[POOLING], num_classes)
    old_GD, new_GD = (means.of(new=new)[copies] for new in (False, True))
    group, column = divmod(num_classes, pooling_GDF.shape[2])
    if column == 0:
        best = int((new_GD - old_GD).norm(dim=1).argmax())
        for rows_GD in (queries_GD, old_GD, new_GD):
            rows_GD[group] = rows_GD[best]
    weight_CD = pooling_GDF.transpose(1, 2).flatten(0, 1)[:num_classes]
    bias_C = state[POOLING_BIAS].float()
    group_of_C = torch.arange(num_classes) // pooling_GDF.shape[2]
    usual = ((weight_CD * old_GD[group_of_C]).sum(1) + bias_C).mean()
    row_D, bias = _imprinted(weight_CD, old_GD[group], new_GD[group], usual)
    pooling_GDF[group, :, column] = row_D
    return {
        **state,
        QUERIES: queries_GD,
        POOLING: pooling_GDF,
        POOLING_BIAS: cat([bias_C, bias[None]]),
    }


def _append_rows(
    queries_GD: Tensor, pooling_GDF: Tensor, num_classes: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries and pooling with a free column for a class, and each group's old group.

    timm's layer works its columns F out from classes and groups. Where no column is free, one more
    group is one more query, unless F would shrink by it: then groups are split until it doesn't.
    """
    queries_GD, pooling_GDF = queries_GD.float().clone(), pooling_GDF.float().clone()
    groups, _, columns = pooling_GDF.shape
    old_group_G = torch.arange(groups)
    if num_classes < groups * columns:
        return queries_GD, pooling_GDF, old_group_G
    parts = next(
        parts
        for parts in range(1, columns + 1)
        if columns % parts == 0 and columns // parts - 1 < groups * parts + 1
    )
    split_GDF = cat([part[:, None] for part in pooling_GDF.chunk(parts, dim=2)], dim=1).flatten(
        0, 1
    )
    old_group_G = cat([old_group_G.repeat_interleave(parts), old_group_G[:1]])
    spare_DF = torch.zeros_like(split_GDF[:1])
    return queries_GD[old_group_G], cat([split_GDF, spare_DF]), old_group_G
