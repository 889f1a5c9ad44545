"""Where a classifier looks: Grad-CAM over its last feature map, for conv nets and transformers.

Selvaraju et al., "Grad-CAM", ICCV 2017, through captum. Feature maps with the channels last, and
tokens, have no average of gradients over space that means anything: there each position's own
gradient times activation is summed (Draelos and Carin, "HiResCAM", 2020).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carray.models.backbones import map_width
from carray.models.classifier import Classifier

STRIDED = nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d
FEWEST_CELLS = 7  # a side; a coarser map is taken from an earlier stage


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

    model = WatchedClassifier(classifier).eval()
    if (earlier := model.finer_layer(images.shape[-1])) is not None:
        return _earlier_cam(model, earlier, images, targets)
    layer, prefix = model.watched_layer()
    cells = _Cells(images.shape[-1])
    by_channel = model.is_channels_first(images, cells) and prefix is None
    method = (LayerGradCam if by_channel else LayerGradientXActivation)(model, layer)
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's hooks on layers that work in place
        found = method.attribute(images, target=targets)
    maps = found if by_channel else _summed(found, prefix or 0)
    maps = cells.drawn(maps.detach().float().relu())
    most = maps.amax((1, 2, 3), keepdim=True)
    return (maps / most.clamp(min=1e-12)).squeeze(1).cpu()


def _earlier_cam(
    model: WatchedClassifier, layer: nn.Module, images: Tensor, targets: Tensor
) -> Tensor:
    """Return `grad_cam` of a layer before the last, whose map (B, D, H, W) has more cells.

    Its gradients differ from place to place, so that each place's own is taken (HiResCAM).
    """
    from captum.attr import LayerGradientXActivation

    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = LayerGradientXActivation(model, layer).attribute(images, target=targets)
    cells = _Cells(images.shape[-1], stops_at=found.shape[-1])
    model.is_channels_first(images, cells)
    maps = cells.drawn(found.detach().float().sum(1, keepdim=True).relu())
    most = maps.amax((1, 2, 3), keepdim=True)
    return (maps / most.clamp(min=1e-12)).squeeze(1).cpu()


class WatchedClassifier(nn.Module):
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

    def finer_layer(self, image_side: int) -> nn.Module | None:
        """Return the last stage whose map has `FEWEST_CELLS`, where the very last has fewer.

        None where the last map will do, and of nets that timm knows no stages of, or of tokens.
        """
        sides = self._stage_sides(image_side)
        if not sides or self._last_side(image_side) >= FEWEST_CELLS:
            return None
        finer = [name for name, side in sides.items() if side >= FEWEST_CELLS]
        return self.classifier.backbone.get_submodule(finer[-1]) if finer else None

    def map_sides(self, image_side: int) -> tuple[int, int]:
        """Return the cells on a side of the last map, and of the one that is watched."""
        last = self._last_side(image_side)
        if last >= FEWEST_CELLS:
            return last, last
        finer = [s for s in self._stage_sides(image_side).values() if s >= FEWEST_CELLS]
        return last, finer[-1] if finer else last

    def _stage_sides(self, image_side: int) -> dict[str, int]:
        """Return {stage's module: cells on a side of its map (B, D, H, W)}, first to last."""
        backbone = self.classifier.backbone
        rows = getattr(backbone, "feature_info", None) or ()
        known = {row["module"]: row["num_chs"] for row in rows}
        names = [name for name, _ in backbone.named_modules() if name in known and name]
        sides: dict[str, int] = {}

        def keep(name: str) -> Any:
            def hook(layer: Any, inputs: Any, output: Any) -> None:
                shape = tuple(output.shape) if isinstance(output, Tensor) else ()
                if len(shape) == 4 and shape[1:3] == (known[name], shape[3]):
                    sides[name] = shape[3]

            return hook

        hooks = [backbone.get_submodule(n).register_forward_hook(keep(n)) for n in names]
        try:
            self._last_side(image_side)
        finally:
            for hook in hooks:
                hook.remove()
        return sides

    @torch.no_grad()
    def _last_side(self, image_side: int) -> int:
        """Return the cells on a side of the last map; of tokens, the root of their number."""
        backbone = self.classifier.backbone
        some = next(self.classifier.parameters())
        zeros = torch.zeros(1, 3, image_side, image_side, device=some.device, dtype=some.dtype)
        was_training = backbone.training
        maps: Tensor = backbone.eval().forward_features(zeros)  # type: ignore[operator]
        backbone.train(was_training)
        if maps.ndim == 3:
            tokens = float(maps.shape[1] - int(getattr(backbone, "num_prefix_tokens", 0)))
            return round(math.sqrt(tokens))
        channels_first = maps.shape[1] == map_width(backbone)
        return int(maps.shape[-1] if channels_first else maps.shape[1])

    @torch.no_grad()
    def is_channels_first(self, images: Tensor, cells: _Cells) -> bool:
        """Say whether the feature map is (B, D, H, W); `cells` learns where its cells lie."""
        backbone = self.classifier.backbone
        hooks = [
            layer.register_forward_hook(cells.passed)
            for layer in backbone.modules()
            if isinstance(layer, STRIDED)
        ]
        try:
            maps: Tensor = backbone.forward_features(images[:1])  # type: ignore[operator]
        finally:
            for hook in hooks:
                hook.remove()
        return maps.ndim == 4 and maps.shape[1] == map_width(backbone)


@dataclass
class _Cells:
    """Where the cells of a feature map have their centres, in pixels of the image."""

    image_side: int
    first: float = 0.0
    """Of the first cell, from the centre of the first pixel."""
    step: float = 1.0
    """From one cell to the next."""
    side: int = 0
    """Of the map in cells, as far as the layers are known; 0 before the first."""
    stops_at: int = 0
    """The side of the map that is watched, where that isn't the last."""

    def passed(self, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Follow one layer, a hook of its forward pass; of those side by side, the first."""
        before, after = inputs[0].shape[-1], output.shape[-1]
        if before != (self.side or self.image_side) or not self.stops_at <= after < before:
            return
        stride, reach = _across(layer.stride), _across(layer.kernel_size) - 1
        reach *= _across(getattr(layer, "dilation", 1))
        padding = 0 if isinstance(layer.padding, str) else _across(layer.padding)
        missing = (after - 1) * stride + reach + 1 - before  # a layer that pads as TensorFlow does
        self.first += self.step * (reach / 2 - (padding or max(0, missing) // 2))
        self.step *= stride
        self.side = after

    def drawn(self, maps: Tensor) -> Tensor:
        """Return maps (B, 1, side, side) of the image's side from ones of the map's."""
        side, step, first = maps.shape[-1], self.step, self.first
        if side != self.side:  # not by strided layers alone: spread evenly
            step = self.image_side / side
            first = (step - 1) / 2
        pixels = torch.arange(self.image_side, device=maps.device)
        places = (2 * (pixels - first) / step + 1) / side - 1  # as `grid_sample` counts
        grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), -1)
        grid = grid.expand(len(maps), -1, -1, -1)
        return F.grid_sample(maps, grid, padding_mode="border", align_corners=False)


def _across(value: int | tuple[int, ...]) -> int:
    return value if isinstance(value, int) else value[-1]


def _summed(products: Tensor, prefix: int) -> Tensor:
    """Sum (B, H, W, D), or (B, prefix + H W, D), over D; return (B, 1, H, W)."""
    summed = products.sum(-1)
    if summed.ndim == 2:
        summed = summed[:, prefix:]
        side = round(summed.shape[1] ** 0.5)
        summed = summed.reshape(len(summed), side, -1)
    return summed[:, None]
