"""Scores from counts that add up over ranks: sums first, one division at the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from carray import metrics
from carray.training.ranks import Ranks

TOP_K = 5
TINY = 1e-12  # where all labels are of one class
UNCALIBRATED = metrics.TEMPERATURES.index(1.0)
LOG_LOSSES = slice(3, 3 + len(metrics.TEMPERATURES))  # in the vector of sums
BY_CLASS = LOG_LOSSES.stop


@dataclass
class ScoreSums:
    """Sums over images, in one float64 vector.

    Images, top-1, top-5; log-loss at each temperature; then by class: right, predicted, there, sum
    of the logits and of their squares.
    """

    num_classes: int
    device: torch.device

    def __post_init__(self) -> None:
        length = BY_CLASS + 5 * self.num_classes
        self.sums = torch.zeros(length, dtype=torch.float64, device=self.device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: logits (B, C), labels (B,)."""
        logits = logits.float()
        ranked = logits.topk(min(TOP_K, self.num_classes), 1).indices  # (B, min(5, C))
        predicted = ranked[:, 0]
        hits = ranked == labels[:, None]
        self.sums[0] += len(labels)
        self.sums[1] += hits[:, 0].sum()
        self.sums[2] += hits.sum()
        self.sums[LOG_LOSSES].add_(_log_losses(logits, labels))
        for part, classes in enumerate((labels[hits[:, 0]], predicted, labels)):
            self._by_class(part).add_(torch.bincount(classes, minlength=self.num_classes))
        exact = logits.double()
        self._by_class(3).add_(exact.sum(0))
        self._by_class(4).add_(exact.square().sum(0))

    def _by_class(self, part: int) -> Tensor:
        """Return sums by class: 0 right, 1 predicted, 2 there, 3 logits, 4 squared logits."""
        start = BY_CLASS + part * self.num_classes
        return self.sums[start : start + self.num_classes]

    def reduced(self, ranks: Ranks) -> dict[str, float]:
        """Return the metrics over all ranks' images."""
        self.sums = ranks.all_sum(self.sums)
        images, top1, top5 = self.sums[:3].tolist()
        log_losses = self.sums[LOG_LOSSES]
        log_loss = float(log_losses[UNCALIBRATED])
        there, recalls = max(_entropy(self._by_class(2)), TINY), self._recalls()
        return {
            metrics.VAL_LOG_LOSS: log_loss / images,
            metrics.VAL_CALIBRATED_LOG_LOSS: float(log_losses.min()) / images,
            metrics.VAL_TOP1: top1 / images,
            metrics.VAL_TOP5: top5 / images,
            metrics.VAL_MACRO_F1: self._macro_f1(),
            metrics.VAL_BALANCED_ACCURACY: float(recalls.mean()),  # of the classes that are there
            metrics.VAL_WORST_CLASS: float(recalls.min()),
            metrics.VAL_SKILL: 1 - log_loss / images / there,
            metrics.VAL_SPREAD: _entropy(self._by_class(1)) / there,
            metrics.VAL_LOGIT_STD: self._logit_std(),
        }

    def _macro_f1(self) -> float:
        """Average F1 over the classes that are there or were predicted."""
        right, predicted, there = (self._by_class(part) for part in range(3))
        seen = (predicted + there) > 0
        return float((2 * right[seen] / (predicted + there)[seen]).mean())

    def _recalls(self) -> Tensor:
        """Return of each class that is there the share of its images that is right."""
        right, there = self._by_class(0), self._by_class(2)
        return right[there > 0] / there[there > 0]

    def _logit_std(self) -> float:
        """Average over classes the standard deviation over images: 0 if images make no odds."""
        images = self.sums[0]
        variance = self._by_class(4) / images - (self._by_class(3) / images).square()
        return float(variance.clamp(min=0).sqrt().mean())


def _log_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of a batch's log-losses at each temperature."""
    losses = [
        F.cross_entropy(logits / temperature, labels, reduction="none").double().sum()
        for temperature in metrics.TEMPERATURES
    ]
    return torch.stack(losses)


def _entropy(counts: Tensor) -> float:
    """Return the entropy in nats of a histogram with at least one count."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log()).sum())
