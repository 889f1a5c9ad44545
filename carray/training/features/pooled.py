"""Pooled features of a trained backbone: whole images, no augmentation, evaluation mode."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from carray.config import TrialConfig
from carray.data.pixels.loader import Loader, to_device
from carray.models.classifier import Classifier
from carray.progress import silent
from carray.training.dataset import TrialData
from carray.training.evaluation import eval_plan
from carray.training.trial_state import Numerics
from carray.typing import Progress, Rows

Features = npt.NDArray[np.float32]


@torch.inference_mode()
def pooled_features(
    classifier: Classifier,
    data: TrialData,
    rows: Rows,
    config: TrialConfig,
    numerics: Numerics,
    progress: Progress = silent,
) -> Features:
    """Return (rows, width) float32: what the head sees; the mean over positions for ML-Decoder."""
    classifier.eval()
    parts = []
    plan = eval_plan(data, rows, config, numerics.device)
    with progress("features", len(rows)) as advance:
        for batch in Loader(plan, 1):
            images, _ = to_device(batch, numerics.device)
            with numerics.autocast():
                features = classifier.features(numerics.normalise(images)).float()
            parts.append((features.mean(1) if features.ndim == 3 else features).cpu())
            advance(len(batch))
    return np.asarray(torch.cat(parts), np.float32)
