"""A linear probe of one backbone: its frozen features from the store, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from carray.config import TrialConfig
from carray.models.weights import PathLike
from carray.progress import silent
from carray.training.dataset import TrialData
from carray.training.features.fits import FITS, FeatureDataset
from carray.training.features.frozen import FrozenBackbone
from carray.training.features.pooled import Features, pooled_features
from carray.training.train import default_device
from carray.training.trial_state import build_live
from carray.typing import Float32s, Progress, Rows


@dataclass(frozen=True, eq=False)
class ProbedLogits:
    """What the probe answers on `val`, and how large the backbone is."""

    log_p: Float32s
    """(images, classes): log-probabilities."""
    parameters: int
    """Of the backbone."""


def probe_backbone(
    config: TrialConfig,
    data: TrialData,
    weights: PathLike | None = None,
    progress: Progress = silent,
) -> ProbedLogits:
    """Fit multinomial logistic regression to the features of whole images of `train`.

    They are those that trials with `finetune.policy=head_only` store and take. How strongly the
    fit is regularised is chosen on `val`, of four strengths, alike for each backbone.

    Raises:
        ConfigError: the backbone is unknown, or does not take the image size.
        WeightsError: its weights can't be had or don't fit.
    """
    live = build_live("probe", config, data, default_device(), weights=weights)
    frozen = FrozenBackbone(
        live.classifier, config, data, live.spec, live.numerics, live.initialisation
    )
    rows = data.train, data.held["val"]
    train, val = (_features(frozen, own, progress) for own in rows)
    labels = [np.asarray(data.images.labels[own]) for own in rows]
    known = FeatureDataset(train, labels[0], val, labels[1], len(data.classes))
    tensors, _ = FITS["linear_probe"](known, config.seed)
    logits = torch.from_numpy(val) @ tensors["1.weight"].T + tensors["1.bias"]
    parameters = sum(each.numel() for each in live.classifier.backbone.parameters())
    return ProbedLogits(logits.log_softmax(dim=1).numpy(), parameters)


def _features(frozen: FrozenBackbone, rows: Rows, progress: Progress) -> Features:
    """Return (rows, D) float32, from the store where its budget has room."""
    stored = frozen.features(rows, 0, 1, progress) if frozen.data.folder else None
    if stored is None:
        data, config, numerics = frozen.data, frozen.config, frozen.numerics
        return pooled_features(frozen.classifier, data, rows, config, numerics, progress)
    return np.asarray(stored[rows], np.float32)
