"""A model package as one module: decoded images in, calibrated probabilities out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from carray.data.pixels.augmentation import View
from carray.data.pixels.store import store_side
from carray.export.resampling import Square
from carray.export.seen_view import SeenView
from carray.inference.predictor import Geometry, Member, Model
from carray.models.averaging import averaged_log_p, stacked_log_p
from carray.predictions.combination import Combination


class ModelGraph(nn.Module):
    """Images (N, H, W, 3), uint8 RGB of one size, to probabilities (N, classes).

    Resizing, views, normalisation, weights, the average and the temperature are all inside.
    """

    scales: Tensor
    offsets: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.combination = model.card.combination
        if stack := self.combination.average.stack:
            self.register_buffer("scales", torch.tensor(stack.scales))
            self.register_buffer("offsets", torch.tensor(stack.offsets))
        self.geometries: list[Geometry] = list(
            dict.fromkeys(member.geometry for member in model.members)
        )
        self.squares = nn.ModuleList(Square(store_side(s), fit) for s, fit in self.geometries)
        self.members = nn.ModuleList(
            _MemberGraph(member, self.combination) for member in model.members
        )
        self.square_of = [self.geometries.index(member.geometry) for member in model.members]

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities."""
        squares = [square(images) for square in self.squares]
        log_ps = [
            member(squares[place])
            for member, place in zip(self.members, self.square_of, strict=True)
        ]
        average = self.combination.average
        if average.stack:
            merged = stacked_log_p(log_ps, self.scales, self.offsets)
        else:
            merged = averaged_log_p(log_ps, average.weights, average.space)
        return torch.softmax(merged / average.temperature, dim=1)


class _MemberGraph(nn.Module):
    """Squares (N, 3, side, side) to log-probabilities (N, classes), merged over the views."""

    def __init__(self, member: Member, combination: Combination) -> None:
        super().__init__()
        self.tta = combination.views
        size, _ = member.geometry
        self.views = nn.ModuleList(_ViewGraph(size, view, member) for view in self.tta.views)
        self.classifier = member.classifier
        for module in self.classifier.modules():
            fix_counts(module)

    def forward(self, square: Tensor) -> Tensor:
        log_ps = [torch.log_softmax(self.classifier(view(square)), dim=1) for view in self.views]
        return averaged_log_p(log_ps, (1.0 / len(log_ps),) * len(log_ps), self.tta.space)


class _ViewGraph(nn.Module):
    """One view of squares (N, 3, side, side), normalised: (N, 3, size, size)."""

    scale: Tensor
    shift: Tensor

    def __init__(self, size: int, view: View, member: Member) -> None:
        super().__init__()
        self.seen = SeenView(store_side(size), size, view)
        self.register_buffer("scale", member.numerics.scale)
        self.register_buffer("shift", member.numerics.shift)

    def forward(self, square: Tensor) -> Tensor:
        normalised: Tensor = self.seen(square) * self.scale + self.shift
        return normalised


def fix_counts(module: nn.Module) -> None:
    """Make a fitted head's counts part of the graph: how deep trees are, how many neighbours."""
    for name, value in list(module.named_buffers(recurse=False)):
        if name in ("depth", "neighbours") and value.ndim == 0:
            delattr(module, name)
            setattr(module, name, int(value))
