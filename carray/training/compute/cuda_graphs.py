"""Training steps as CUDA graphs: a small backbone's kernels end sooner than a CPU launches them.

Captured as they are, not compiled: the same kernels, the same results, after a second or less.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from carray.models.classifier import Classifier


class GraphedClassifier(nn.Module):
    """A classifier whose forward and backward passes are replayed, one launch each.

    Made for batches of one shape, in the precision and with the layers that train now. A replay
    writes its gradients where the one before had them: none may be kept for the next step.
    """

    def __init__(
        self, classifier: Classifier, shape: tuple[int, int, int, int], dtype: torch.dtype | None
    ) -> None:
        """Capture for images of `shape`, (B, 3, side, side)."""
        super().__init__()
        images = torch.zeros(shape, device=next(classifier.parameters()).device)
        self.classifier = classifier
        # a replayed gradient comes from the stream that it was captured on, which is no fault
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
        with _statistics_kept(classifier), warnings.catch_warnings():
            # the backward pass's thread finds the device's context by itself, and says so
            warnings.filterwarnings("ignore", message="Attempting to run cuBLAS")
            step = _Step(classifier, dtype)
            replay: Any = torch.cuda.make_graphed_callables(
                step, (images,), allow_unused_input=True
            )
        self._replay: Callable[[Tensor], Tensor] = replay

    def forward(self, images: Tensor, are_features: bool = False) -> Tensor:
        """Return logits (B, C); features take the classifier's own way."""
        if are_features:
            known: Tensor = self.classifier(images, True)
            return known
        logits: Tensor = self._replay(images)
        return logits


class _Step(nn.Module):
    """What is captured: autocast's cache of cast weights would outlive its graph."""

    def __init__(self, classifier: Classifier, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.classifier, self._dtype = classifier, dtype

    def forward(self, images: Tensor) -> Tensor:
        kind, dtype = images.device.type, self._dtype
        on = dtype is not None
        with torch.autocast(kind, dtype or torch.bfloat16, enabled=on, cache_enabled=False):
            logits: Tensor = self.classifier(images)
        return logits


@contextmanager
def _statistics_kept(classifier: Classifier) -> Iterator[None]:
    """Put batch statistics back: capturing runs a few steps to warm up."""
    before = [(buffer, buffer.clone()) for buffer in classifier.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, kept in before:
                buffer.copy_(kept)
