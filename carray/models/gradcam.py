"""Where a classifier looks: Grad-CAM over its last feature map, for conv nets and transformers.

Selvaraju et al., "Grad-CAM", ICCV 2017, through captum. Feature maps with the channels last, and
tokens, have no average of gradients over space that means anything: there each position's own
gradient times activation is summed (Draelos and Carin, "HiResCAM", 2020).
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carray.models.backbones import map_width
from carray.models.classifier import Classifier


def grad_cam(classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
    """Return how much each pixel speaks for its image's target class.

    Args:
        classifier: in eval mode, on the device of the images.
        images: normalised, (B, 3, side, side).
        targets: class indices, (B,).

    Returns:
        (B, side, side) on the CPU, each from 0 to 1; all zeros where nothing speaks for the class.
    """
    from captum.attr import LayerGradCam, LayerGradientXActivation

    model = _Opened(classifier).eval()
    layer, prefix = model.watched_layer()
    by_channel = prefix is None and model.is_channels_first(images)
    method = (LayerGradCam if by_channel else LayerGradientXActivation)(model, layer)
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's hooks on layers that work in place
        found = method.attribute(images, target=targets)
    maps = found if by_channel else _summed(found, prefix or 0)
    maps = F.interpolate(
        maps.detach().float().relu(), images.shape[-2:], mode="bilinear", align_corners=False
    )
    most = maps.amax((1, 2, 3), keepdim=True)
    return (maps / most.clamp(min=1e-12)).squeeze(1).cpu()


class _Opened(nn.Module):
    """The classifier, with its feature map passing through a layer that can be watched."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.map = nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, C)."""
        classifier, backbone = self.classifier, self.classifier.backbone
        maps = self.map(backbone.forward_features(images))  # type: ignore[operator]
        if classifier.reads_map:
            features = classifier.positions(maps)
        else:
            features = backbone.forward_head(maps)  # type: ignore[operator]
        logits: Tensor = classifier.head(features)
        return logits

    def watched_layer(self) -> tuple[nn.Module, int | None]:
        """Return the layer to watch, and how many of its tokens are no image; None of maps.

        A class token alone is read from the last block's output, which leaves its other tokens
        without a gradient: there the input of that block's attention is watched.
        """
        backbone = self.classifier.backbone
        prefix = getattr(backbone, "num_prefix_tokens", None)
        if prefix is None or not hasattr(backbone, "blocks"):
            return self.map, None
        reads_token = getattr(backbone, "global_pool", "") == "token"
        last = list(backbone.blocks)[-1]  # type: ignore[arg-type]
        if reads_token and not self.classifier.reads_map and hasattr(last, "norm1"):
            return last.norm1, int(prefix)
        return self.map, int(prefix)

    @torch.no_grad()
    def is_channels_first(self, images: Tensor) -> bool:
        """Say whether the feature map is (B, D, H, W)."""
        maps: Tensor = self.classifier.backbone.forward_features(images[:1])  # type: ignore[operator]
        width = map_width(self.classifier.backbone)
        return maps.ndim == 4 and maps.shape[1] == width


def _summed(products: Tensor, prefix: int) -> Tensor:
    """Sum (B, H, W, D), or (B, prefix + H W, D), over D; return (B, 1, H, W)."""
    summed = products.sum(-1)
    if summed.ndim == 2:
        summed = summed[:, prefix:]
        side = round(summed.shape[1] ** 0.5)
        summed = summed.reshape(len(summed), side, -1)
    return summed[:, None]
