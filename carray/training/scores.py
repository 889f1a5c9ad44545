"""Scores from counts that add up over ranks: sums first, one division at the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from carray import metrics
from carray.training.ranks import Ranks

TOP_K = 5


@dataclass
class ScoreSums:
    """Sums over images, in one float64 vector: images, log-loss, top-1, top-5, 3 counts a class."""

    num_classes: int
    device: torch.device

    def __post_init__(self) -> None:
        length = 4 + 3 * self.num_classes
        self.sums = torch.zeros(length, dtype=torch.float64, device=self.device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits (B, C), labels (B,)."""
        logits = logits.float()
        ranked = logits.topk(min(TOP_K, self.num_classes), 1).indices  # (B, min(5, C))
        predicted = ranked[:, 0]
        hits = ranked == labels[:, None]
        log_loss = F.cross_entropy(logits, labels, reduction="none").to(self.sums.dtype)
        self.sums[0] += len(labels)
        self.sums[1] += log_loss.sum()
        self.sums[2] += hits[:, 0].sum()
        self.sums[3] += hits.sum()
        for part, classes in enumerate((labels[hits[:, 0]], predicted, labels)):
            self._class_counts(part).add_(torch.bincount(classes, minlength=self.num_classes))

    def _class_counts(self, part: int) -> Tensor:
        """Return the counts by class: 0 right, 1 predicted, 2 there."""
        start = 4 + part * self.num_classes
        return self.sums[start : start + self.num_classes]

    def reduced(self, ranks: Ranks) -> dict[str, float]:
        """Return the metrics over all ranks' images."""
        self.sums = ranks.all_sum(self.sums)
        images, log_loss, top1, top5 = self.sums[:4].tolist()
        return {
            metrics.VAL_LOG_LOSS: log_loss / images,
            metrics.VAL_TOP1: top1 / images,
            metrics.VAL_TOP5: top5 / images,
            metrics.VAL_MACRO_F1: self._macro_f1(),
        }

    def _macro_f1(self) -> float:
        """Average F1 over the classes that are there or were predicted."""
        right, predicted, there = (self._class_counts(part) for part in range(3))
        seen = (predicted + there) > 0
        return float((2 * right[seen] / (predicted + there)[seen]).mean())
