"""One view of squares in a graph: cut or warped, recoloured and blurred as evaluation does it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carray.data.pixels.augmentation import View, identity_params, tilts_of
from carray.data.pixels.blur import TAPS
from carray.export.resampling import WHOLE, ViewTaps, two_taps


class SeenView(nn.Module):
    """Squares (N, 3, side, side) of whole numbers to a view of them (N, 3, size, size)."""

    def __init__(self, side: int, size: int, view: View) -> None:
        super().__init__()
        self.changes = nn.Sequential(
            Warp(side, size, view) if view.rotate or view.tilt else ViewTaps(side, size, view)
        )
        params = identity_params(1, side, size, view)
        if params.has_colour:
            self.changes.append(Colour(torch.from_numpy(params.colour[0])))
        if view.blur:
            self.changes.append(Blur(view.blur))

    def forward(self, square: Tensor) -> Tensor:
        """Return the view, in whole numbers too."""
        seen: Tensor = self.changes(square)
        return seen


class Warp(nn.Module):
    """A turned or tilted view: each pixel is a fixed mean of four."""

    places: Tensor
    """(4, size * size): numbers of pixels."""
    shares: Tensor

    def __init__(self, side: int, size: int, view: View) -> None:
        super().__init__()
        params = identity_params(1, side, size, view)
        steps = np.arange(size, dtype=np.float64)
        x, y = (axis.ravel() for axis in np.meshgrid(steps, steps))
        tilt = tilts_of(params.tilt, size)[0] if len(params.tilt) else np.eye(3)
        tilted = tilt.astype(np.float64) @ np.stack([x, y, np.ones_like(x)])
        across, down = params.affine[0].astype(np.float64) @ (tilted / tilted[2])
        (left, left_shares), (top, top_shares) = (
            two_taps(source, side, False) for source in (across, down)
        )
        places = top[:, None] * side + left[None]  # (2, 2, size * size)
        shares = top_shares[:, None] * left_shares[None] / WHOLE**2
        self.size = size
        self.register_buffer("places", torch.from_numpy(places.reshape(4, -1)))
        self.register_buffer("shares", torch.from_numpy(shares.reshape(4, -1)))

    def forward(self, square: Tensor) -> Tensor:
        """Return the view."""
        pixels = square.flatten(2)
        four = [
            pixels.index_select(2, place) * share
            for place, share in zip(self.places, self.shares, strict=True)
        ]
        seen: Tensor = four[0] + four[1] + four[2] + four[3]
        return seen.round().view(-1, 3, self.size, self.size)


class Colour(nn.Module):
    """Another brightness and contrast."""

    colour: Tensor

    def __init__(self, colour: Tensor) -> None:
        super().__init__()
        self.register_buffer("colour", colour)  # (3, 4): RGB and 1 -> RGB

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, 3, size, size) of whole numbers."""
        mixed: Tensor = F.conv2d(images, self.colour[:, :3, None, None], self.colour[:, 3])
        return mixed.round().clamp(0, 255)


class Blur(nn.Module):
    """A Gaussian blur."""

    kernel: Tensor

    def __init__(self, sigma: float) -> None:
        super().__init__()
        line = torch.exp(-0.5 * ((torch.arange(TAPS) - TAPS // 2) / sigma) ** 2)
        line = line / line.sum()
        self.register_buffer("kernel", torch.outer(line, line).expand(3, 1, TAPS, TAPS).clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, 3, size, size) of whole numbers."""
        padded = F.pad(images, (TAPS // 2,) * 4, mode="reflect")
        return F.conv2d(padded, self.kernel, groups=3).round()
