"""Heads that aren't trained by steps: a random forest and nearest neighbours, as plain tensors.

They are fitted once to pooled features (`carray.training.features.classifiers`), then saved, loaded
and fed like any other head; their sizes are those of the file that they are loaded from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carray.config import CLASSICAL_HEADS, HeadConfig
from carray.errors import ConfigError

VOTE_PRIOR = 1.0  # votes shared by all classes: no class has probability 0
NEIGHBOUR_PRIOR = 0.05  # share of the probability that all classes split


class _Fitted(nn.Module):
    """A head whose tensors take their sizes from what is loaded."""

    names: tuple[str, ...]
    num_classes: int

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the tensors of a fit."""
        for name in self.names:
            self.register_buffer(name, tensors[name])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        found = {name: state_dict.get(prefix + name) for name in self.names}
        if all(value is not None for value in found.values()):
            self.fill({name: torch.empty_like(value) for name, value in found.items()})
        super()._load_from_state_dict(state_dict, prefix, *rest)


class ForestHead(_Fitted):
    """A random forest (Breiman, Machine Learning 2001): features (B, D) to log of votes (B, C)."""

    names = ("feature", "threshold", "left", "right", "vote", "depth")
    feature: Tensor
    """(T, N) int32: trees by nodes, the feature that a node asks for."""
    threshold: Tensor
    """(T, N) float32: up to it a node goes left."""
    left: Tensor
    right: Tensor
    """(T, N) int32: the next node; a leaf leads to itself."""
    vote: Tensor
    """(T, N) int32: a leaf's class."""
    depth: Tensor
    """int32: most steps from a root to a leaf."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        nodes = torch.zeros(1, 1, dtype=torch.int32)
        self.fill(dict.fromkeys(self.names, nodes) | {"threshold": nodes.float()})
        self.fill({name: getattr(self, name) for name in self.names} | {"depth": nodes[0, 0]})

    def forward(self, features_BD: Tensor) -> Tensor:
        """Return log-probabilities (B, C)."""
        features_BD = features_BD.float()
        trees = torch.arange(len(self.feature), device=features_BD.device)
        node_BT = torch.zeros(
            features_BD.shape[0], len(trees), dtype=torch.long, device=trees.device
        )
        for _ in range(int(self.depth)):
            asked_BT = self.feature[trees, node_BT].long()
            goes_left = features_BD.gather(1, asked_BT) <= self.threshold[trees, node_BT]
            step = torch.where(goes_left, self.left[trees, node_BT], self.right[trees, node_BT])
            node_BT = step.long()
        votes_BT = self.vote[trees, node_BT].long()
        counts = features_BD.new_zeros(features_BD.shape[0], self.num_classes)
        counts.scatter_add_(1, votes_BT, torch.ones_like(votes_BT, dtype=counts.dtype))
        shares = counts + VOTE_PRIOR / self.num_classes
        return torch.log(shares / (len(trees) + VOTE_PRIOR))


class NeighbourHead(_Fitted):
    """Nearest neighbours by cosine: features (B, D) to log of weighted shares (B, C)."""

    names = ("bank", "bank_labels", "neighbours", "sharpness")
    bank: Tensor
    """(N, D) float16: unit vectors of the training images."""
    bank_labels: Tensor
    """(N,) int32."""
    neighbours: Tensor
    """int32: how many neighbours vote."""
    sharpness: Tensor
    """float32: a neighbour's weight is exp(sharpness x cosine)."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        one = torch.ones((), dtype=torch.int32)
        bank, labels = torch.zeros(1, width, dtype=torch.float16), torch.zeros(1, dtype=torch.int32)
        self.fill(
            {"bank": bank, "bank_labels": labels, "neighbours": one, "sharpness": one.float()}
        )

    def forward(self, features_BD: Tensor) -> Tensor:
        """Return log-probabilities (B, C)."""
        unit_BD = F.normalize(features_BD.float(), dim=1)
        cosine_BN = unit_BD @ self.bank.float().T
        near = cosine_BN.topk(min(int(self.neighbours), len(self.bank)), dim=1)
        weights_BK = torch.softmax(near.values * self.sharpness, dim=1)
        shares = weights_BK.new_zeros(weights_BK.shape[0], self.num_classes)
        shares.scatter_add_(1, self.bank_labels[near.indices].long(), weights_BK)
        mixed = (1 - NEIGHBOUR_PRIOR) * shares + NEIGHBOUR_PRIOR / self.num_classes
        return torch.log(mixed)


def build_fitted_head(kind: str, width: int, num_classes: int) -> nn.Module:
    """Build an empty head of a classical kind."""
    if kind == "random_forest":
        return ForestHead(num_classes)
    return NeighbourHead(num_classes, width)


def check_trained_by_steps(head: HeadConfig) -> None:
    """Refuse a head that no optimizer can train.

    Raises:
        ConfigError: its kind is one of `CLASSICAL_HEADS`.
    """
    if head.kind in CLASSICAL_HEADS:
        raise ConfigError(
            f"head.kind={head.kind!r} is fitted to a trial's features, not trained by steps: "
            f"`carray train DIR --classifier {head.kind} --features-of STUDY/NUMBER`"
        )
