"""Scores against scikit-learn, whole and in shards."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import f1_score, log_loss, recall_score, top_k_accuracy_score
from torch import Tensor

from carray import metrics
from carray.predictions.scores import SCORES
from carray.training.ranks import SoloRanks
from carray.training.scores import ScoreSums

CPU = torch.device("cpu")


def sample(num_classes: int, images: int = 200) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_classes)
    labels = torch.randint(num_classes - 1, (images,), generator=generator)  # one class is empty
    logits = torch.randn(images, num_classes, generator=generator)
    logits[torch.arange(images), labels] += 1.5
    return logits, labels


def scored(*batches: tuple[Tensor, Tensor], num_classes: int) -> dict[str, float]:
    sums = ScoreSums(num_classes, CPU)
    for logits, labels in batches:
        sums.add(logits, labels)
    return sums.reduced(SoloRanks())


@pytest.mark.parametrize("num_classes", [3, 12])
def test_scores_are_scikit_learns(num_classes: int) -> None:
    logits, labels = sample(num_classes)
    ours = scored((logits, labels), num_classes=num_classes)
    classes = list(range(num_classes))
    p = logits.double().softmax(1).numpy()
    truth = labels.numpy()
    top5 = 1.0
    if num_classes > 5:
        top5 = float(top_k_accuracy_score(truth, p, k=5, labels=classes))
    assert ours[metrics.VAL_LOG_LOSS] == pytest.approx(log_loss(truth, p, labels=classes))
    assert ours[metrics.VAL_TOP1] == pytest.approx((p.argmax(1) == truth).mean())
    assert ours[metrics.VAL_TOP5] == pytest.approx(top5)
    f1 = f1_score(truth, p.argmax(1), average="macro")
    assert ours[metrics.VAL_MACRO_F1] == pytest.approx(f1)
    there = sorted(set(truth.tolist()))
    balanced = recall_score(truth, p.argmax(1), labels=there, average="macro")
    assert ours[metrics.VAL_BALANCED_ACCURACY] == pytest.approx(balanced)


def test_calibrated_log_loss_knows_no_overconfidence() -> None:
    logits, labels = sample(12)
    plain = scored((logits, labels), num_classes=12)
    loud = scored((2 * logits, labels), num_classes=12)
    assert loud[metrics.VAL_LOG_LOSS] > 1.05 * plain[metrics.VAL_LOG_LOSS]
    calibrated = [each[metrics.VAL_CALIBRATED_LOG_LOSS] for each in (plain, loud)]
    assert calibrated[0] == pytest.approx(calibrated[1], abs=2e-3)
    assert calibrated[0] <= plain[metrics.VAL_LOG_LOSS]


@pytest.mark.parametrize("num_classes", [3, 12])
def test_ensembles_are_scored_by_the_same_metrics_as_trials(num_classes: int) -> None:
    logits, labels = sample(num_classes)
    ours = scored((logits, labels), num_classes=num_classes)
    assert set(SCORES) == set(metrics.OBJECTIVES)
    for metric, score in SCORES.items():
        log_p = logits.log_softmax(1).numpy()
        assert score(log_p, labels.numpy()) == pytest.approx(ours[metric], abs=1e-6)


def test_unequal_batches_and_shards_add_up_to_the_whole() -> None:
    logits, labels = sample(12)
    whole = scored((logits, labels), num_classes=12)
    parts = [(logits[i:j], labels[i:j]) for i, j in ((0, 7), (7, 150), (150, 200))]
    assert scored(*parts, num_classes=12) == pytest.approx(whole, abs=1e-12)

    class Both(SoloRanks):
        """Stands for the sum over two ranks."""

        def all_sum(self, values: Tensor) -> Tensor:
            return values + other.sums

    other = ScoreSums(12, CPU)
    other.add(*parts[2])
    mine = ScoreSums(12, CPU)
    mine.add(*parts[0])
    mine.add(*parts[1])
    assert mine.reduced(Both()) == pytest.approx(whole, abs=1e-12)
