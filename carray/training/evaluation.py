"""Evaluation: a classifier's logits and scores on held images, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from carray.config import TrialConfig
from carray.data.pixels.loader import Batch, EvalPlan, Loader, to_device
from carray.models.classifier import Classifier
from carray.training.dataset import TrialData
from carray.training.features.frozen import (
    FeatureBatch,
    FeaturePlan,
    Features,
    FrozenBackbone,
    features_to_device,
)
from carray.training.ranks import Ranks
from carray.training.scores import ScoreSums
from carray.training.trial_state import LiveTrial, Numerics
from carray.typing import Rows

EVAL_FEATURES = 256  # stored features that a head takes at once


@torch.inference_mode()
def predict_batches(
    classifier: Classifier, plan: EvalPlan | FeaturePlan, numerics: Numerics, num_loaders: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (logits (B, C) float32, labels (B,)) on the device, in the plan's order."""
    classifier.eval()
    loader: Loader[Batch | FeatureBatch] = Loader(plan, num_loaders)
    for batch in loader:
        if isinstance(batch, FeatureBatch):
            inputs, labels = features_to_device(batch, numerics.device)
        else:
            images, labels = to_device(batch, numerics.device)
            inputs = numerics.normalise(images)
        with numerics.autocast():
            logits = classifier(inputs, isinstance(batch, FeatureBatch))
        yield logits.float(), labels


def eval_plan(data: TrialData, rows: Rows, config: TrialConfig, device: torch.device) -> EvalPlan:
    """Return how `rows` are evaluated: no gradients are kept, so larger batches fit on a GPU."""
    on_gpu = device.type != "cpu"
    size = config.device_batch_size
    batch_size = 4 * size if on_gpu else min(max(size, 8), 64)
    return EvalPlan(data.images, rows, batch_size, config.image_size, on_gpu)


def evaluate(live: LiveTrial, ranks: Ranks, num_loaders: int) -> dict[str, float]:
    """Return the scores on `val`; each rank takes its share, no image counts twice."""
    rows = live.data.held["val"][ranks.rank :: ranks.world_size]
    plan = _eval_on_features(live, rows, num_loaders) or eval_plan(
        live.data, rows, live.config, live.numerics.device
    )
    scores = ScoreSums(len(live.data.classes), live.numerics.device)
    for logits, labels in predict_batches(live.judged, plan, live.numerics, num_loaders):
        scores.add(logits, labels)
    return scores.reduced(ranks)


def _eval_on_features(live: LiveTrial, rows: Rows, num_loaders: int) -> FeaturePlan | None:
    if not live.config.finetune.feature_views:
        return None
    stored = stored_features(live, live.data.held["val"], 0, num_loaders)
    if stored is None:
        return None
    return FeaturePlan(stored, live.data.images.labels, rows, EVAL_FEATURES, drops_last=False)


def logits_of(
    classifier: Classifier,
    data: TrialData,
    rows: Rows,
    config: TrialConfig,
    numerics: Numerics,
    ranks: Ranks,
    num_loaders: int,
    frozen: FrozenBackbone | None = None,
) -> Tensor:
    """Return float32 logits (len(rows), C) on the CPU, in the order of `rows`, on all ranks.

    A classifier whose backbone never moved may take its features from the store.
    """
    mine = slice(ranks.rank, None, ranks.world_size)
    plan: EvalPlan | FeaturePlan = eval_plan(data, rows[mine], config, numerics.device)
    if frozen and (stored := frozen.features(rows, 0, num_loaders)) is not None:
        labels = data.images.labels
        plan = FeaturePlan(stored, labels, rows[mine], EVAL_FEATURES, drops_last=False)
    parts = [logits for logits, _ in predict_batches(classifier, plan, numerics, num_loaders)]
    logits = torch.zeros(len(rows), len(data.classes), device=numerics.device)
    if parts:
        logits[mine] = torch.cat(parts)
    return ranks.all_sum(logits).cpu()


def stored_features(live: LiveTrial, rows: Rows, view: int, num_loaders: int) -> Features | None:
    """Return the frozen backbone's features of `rows`; None where it has to run."""
    if not (live.classifier.backbone_frozen and live.data.folder):
        return None
    frozen = FrozenBackbone(
        live.classifier, live.config, live.data, live.spec, live.numerics, live.initialisation
    )
    return frozen.features(rows, view, num_loaders)
