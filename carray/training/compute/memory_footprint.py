"""Measures a trial's device memory by one training step and one evaluation of blank images.

Not by rule of thumb: what a step keeps depends on the backbone, on precision and on the libraries.
"""

from __future__ import annotations

import gc
from functools import partial

import numpy as np
import torch

from carray.config import Compute, TrialConfig
from carray.data.pixels.loader import Images
from carray.data.pixels.store import store_side
from carray.models.classifier import Classifier
from carray.training.compute.out_of_memory import CONTEXT_GIB, is_out_of_memory
from carray.training.dataset import TrialData
from carray.training.evaluation import evaluate
from carray.training.loop import train_one_epoch
from carray.training.ranks import SoloRanks
from carray.training.trial_state import build_live, default_compute
from carray.typing import GIB

EVALUATED = 4  # batches of training that one of evaluation may be as large as


def footprint_gib(config: TrialConfig, num_classes: int, device: torch.device) -> float:
    """Return the most GiB that a trial takes of `device`, infinity where it takes more than it has.

    The last epoch counts: by then everything that will train is training. On a CPU this is the
    whole process's memory.
    """
    on_gpu = device.type == "cuda"
    if on_gpu:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        peak_gib = _one_epoch(config.model_copy(update={"pretrained": False}), num_classes, device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return float("inf")
    return torch.cuda.max_memory_reserved(device) / GIB + CONTEXT_GIB if on_gpu else peak_gib


def _one_epoch(config: TrialConfig, num_classes: int, device: torch.device) -> float:
    data = _blank(config, num_classes)
    live = build_live("footprint/0", config, data, device, partial(_largest, config, device))
    trained = train_one_epoch(live, config.epochs, SoloRanks(), 0, lambda images: None)
    evaluate(live, SoloRanks(), 0)
    return trained.peak_memory_gib


def _largest(config: TrialConfig, device: torch.device, classifier: Classifier) -> Compute:
    """Return the way of computing that takes most: CUDA graphs share no memory with evaluation."""
    usual, on_gpu = default_compute(config, classifier, device), device.type == "cuda"
    return usual.model_copy(update={"graphs": on_gpu and not config.grad_checkpointing})


def _blank(config: TrialConfig, num_classes: int) -> TrialData:
    """Return one batch to train on and one to be judged on, each class in both."""
    side, count = store_side(config.image_size), config.device_batch_size
    every = np.arange(max(EVALUATED * count, num_classes))
    images = Images(
        np.broadcast_to(np.zeros((1, side, side, 3), np.uint8), (len(every), side, side, 3)),
        every % num_classes,
    )
    classes = tuple(str(number) for number in range(num_classes))
    return TrialData(images, classes, "", every[:count], {"val": every})
