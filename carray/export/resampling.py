"""carray's resizing as matrices, so that it is part of a graph: pixels = rows @ image @ columns^T.

OpenCV's resizing is linear and treats rows and columns alike; a matrix of (pixels wanted, pixels
there) holds one direction of it, whatever the image's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from carray.config import Fit
from carray.data.pixels.augmentation import View, crops_of, identity_params
from carray.data.pixels.decode import BORDER_RGB
from carray.typing import Float32s, Float64s

CUBIC = -0.75  # OpenCV's constant
WHOLE = 2048  # what OpenCV's weights of integers add up to


class _Way(NamedTuple):
    """One direction of a resize: which pixels are read, and which are written."""

    places: Tensor
    """(L,): 0, 1, ... of the image's pixels, less where the part that is read begins."""
    length: Tensor
    """Pixels of that part; a tensor without dimensions, as those below."""
    first: Tensor
    """The first pixel that is written."""
    inner: Tensor
    """How many are written."""


class Square(torch.nn.Module):
    """Images (N, H, W, 3), uint8, to squares (N, 3, side, side) of whole numbers in [0, 255].

    The same as `carray.data.pixels.decode.make_square`, but for roundings of one level.
    """

    border: Tensor

    def __init__(self, side: int, fit: Fit) -> None:
        super().__init__()
        self.side, self.fit = side, fit
        self.register_buffer("border", torch.tensor(BORDER_RGB).view(1, 3, 1, 1).float())

    def forward(self, images: Tensor) -> Tensor:
        """Return the squares."""
        pixels = images.permute(0, 3, 1, 2).float()
        down, across = self._ways(pixels)
        rows, columns = _matrices(down, across, self.side)
        square = rows @ (pixels @ columns.T)
        square = (square + _half_up(down, across)).round().clamp(0, 255)
        square = torch.where(
            _is_mixed(down, across), _linear(pixels, down, across, self.side), square
        )
        inside = _written(down, self.side)[:, None] * _written(across, self.side)
        return square * inside + self.border * (1 - inside)

    def _ways(self, pixels: Tensor) -> tuple[_Way, _Way]:
        places = [torch.arange(pixels.shape[axis], device=pixels.device).float() for axis in (2, 3)]
        lengths = [torch.ones_like(each).sum() for each in places]  # of the size that comes
        shortest, longest = torch.minimum(*lengths), torch.maximum(*lengths)
        whole = torch.full_like(longest, self.side)
        none = torch.zeros_like(longest)
        if self.fit == "squash":
            ways = [_Way(*each, none, whole) for each in zip(places, lengths, strict=True)]
        elif self.fit == "crop":
            starts = [((length - shortest) / 2).floor() for length in lengths]
            moved = [own - start for own, start in zip(places, starts, strict=True)]
            ways = [_Way(own, shortest, none, whole) for own in moved]
        else:
            inner = [(length * self.side / longest).round().clamp(min=1) for length in lengths]
            first = [((self.side - own) / 2).floor() for own in inner]
            ways = [_Way(*each) for each in zip(places, lengths, first, inner, strict=True)]
        return ways[0], ways[1]


def _half_up(down: _Way, across: _Way) -> Tensor:
    """Return what moves ties upwards where both sides are halved: OpenCV rounds those so."""
    halved = (down.length == 2 * down.inner) & (across.length == 2 * across.inner)
    return halved * 1e-2


def _written(way: _Way, side: int) -> Tensor:
    """Return (side,): 1 where a pixel is written, else 0."""
    place = _target(way, side)
    return ((place >= 0) & (place < way.inner)).float()


def _target(way: _Way, side: int) -> Tensor:
    return torch.arange(side, device=way.places.device) - way.first


def _matrices(down: _Way, across: _Way, side: int) -> tuple[Tensor, Tensor]:
    """Return matrices (side, H) and (side, W): the area's mean where the image shrinks."""
    smaller = _is_smaller(down, across)

    def chosen(way: _Way) -> Tensor:
        return torch.where(smaller, _area(way, side), _cubic(way, side))

    return chosen(down), chosen(across)


def _is_smaller(down: _Way, across: _Way) -> Tensor:
    return down.inner * across.inner < down.length * across.length


def _is_mixed(down: _Way, across: _Way) -> Tensor:
    """Say whether the area shrinks and one of the sides grows."""
    grows = (down.length < down.inner) | (across.length < across.inner)
    return _is_smaller(down, across) & grows


def _area(way: _Way, side: int) -> Tensor:
    """Return the shares of the pixels below each new one: INTER_AREA."""
    scale = way.length / way.inner
    start = (_target(way, side) * scale)[:, None]
    low, high = torch.maximum(start, way.places), torch.minimum(start + scale, way.places + 1)
    return (high - low).clamp(min=0) / scale


def _linear(pixels: Tensor, down: _Way, across: _Way, side: int) -> Tensor:
    """Return what INTER_AREA does where one side grows: two pixels each, in integers."""
    places, shares = _linear_taps(across, side)
    wide = _weighted(pixels.index_select(3, places[0]), pixels.index_select(3, places[1]), shares)
    places, shares = _linear_taps(down, side)
    upper, lower = (wide.index_select(2, place) for place in places)
    return _narrowed(upper * shares[0][:, None], lower * shares[1][:, None])


def _linear_taps(way: _Way, side: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return two places and their weights, as OpenCV's doubles have them: one ulp moves a pixel."""
    place, length = _target(way, side).double(), way.length.double()
    inverse = way.inner.double() / length
    base = (place * (1 / inverse)).floor().clamp(min=0)
    share = ((place + 1) - (base + 1) * inverse).float().clamp(min=0)
    share = ((share - share.floor()) * WHOLE).round() * (base < length - 1)
    base = torch.minimum(base, length - 1)
    places = [base, torch.minimum(base + 1, length - 1)]
    return [(each - way.places[0]).long() for each in places], [WHOLE - share, share]


def _weighted(first: Tensor, second: Tensor, shares: Sequence[Tensor]) -> Tensor:
    """Return a sum of pixels with weights in 2048ths, as sixteenths of it are kept."""
    return ((first * shares[0] + second * shares[1]) / 16).floor()


def _narrowed(upper: Tensor, lower: Tensor) -> Tensor:
    """Return pixels of two weighted rows, losing the digits that OpenCV loses."""
    quarters = (upper / 2**16).floor() + (lower / 2**16).floor()
    return ((quarters + 2) / 4).floor()


def _cubic(way: _Way, side: int) -> Tensor:
    """Return INTER_CUBIC's four weights at each new pixel; the edge's pixels go on beyond it."""
    place = (_target(way, side) + 0.5) * (way.length / way.inner) - 0.5
    base = place.floor()
    x = place - base
    before = ((CUBIC * (x + 1) - 5 * CUBIC) * (x + 1) + 8 * CUBIC) * (x + 1) - 4 * CUBIC
    left = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    right = ((CUBIC + 2) * (1 - x) - (CUBIC + 3)) * (1 - x) * (1 - x) + 1
    return _taps(way, base - 1, (before, left, right, 1 - before - left - right))


def _taps(way: _Way, base: Tensor, weights: tuple[Tensor, ...]) -> Tensor:
    """Lay weights (side,) of the pixels from `base` on into a matrix (side, L)."""
    matrix = torch.zeros_like(base)[:, None]
    for step, weight in enumerate(weights):
        place = torch.minimum((base + step).clamp(min=0), way.length - 1)
        matrix = matrix + weight[:, None] * (place[:, None] == way.places)
    return matrix


class ViewTaps(torch.nn.Module):
    """Squares (N, 3, side, side) to one view of them (N, 3, size, size), as evaluation resizes.

    A view of whole pixels is what `cv2.resize` makes of it, in its integers: weights in 2048ths,
    and sums that lose their last digits. Another one is warped, and rounded once.
    """

    across: Tensor
    down: Tensor
    """Two places each, (2, size)."""
    across_shares: Tensor
    down_shares: Tensor
    """Their weights in 2048ths, (2, size)."""

    def __init__(self, side: int, size: int, view: View) -> None:
        super().__init__()
        affine = identity_params(1, side, size, view).affine
        x1, y1, x2, y2 = crops_of(affine, side, size)[0].tolist()
        self.is_crop = bool(x2 > x1)
        steps, (across, down) = np.arange(size), affine[0].astype(np.float64)
        sources = [steps * across[0] + across[2], steps * down[1] + down[2]]
        if self.is_crop:
            sources = [_resized(steps, x1, x2, view.flip), _resized(steps, y1, y2, False)]
        for name, source in zip(("across", "down"), sources, strict=True):
            places, shares = two_taps(source, side, self.is_crop)
            self.register_buffer(name, torch.from_numpy(places))
            self.register_buffer(f"{name}_shares", torch.from_numpy(shares))

    def forward(self, square: Tensor) -> Tensor:
        """Return the view."""
        left, right = (square.index_select(3, place) for place in self.across)
        if self.is_crop:
            wide = _weighted(left, right, self.across_shares.unbind())
        else:
            wide = left * self.across_shares[0] + right * self.across_shares[1]
        upper, lower = (
            wide.index_select(2, place) * share[:, None]
            for place, share in zip(self.down, self.down_shares, strict=True)
        )
        return _narrowed(upper, lower) if self.is_crop else ((upper + lower) / WHOLE**2).round()


def _resized(steps: npt.NDArray[np.int64], first: int, last: int, flip: bool) -> Float64s:
    """Return where `cv2.resize` reads the pixels `steps` of a cut from `first` to `last`."""
    ratio = (last - first) / len(steps)
    source: Float64s = np.clip(first + (steps + 0.5) * ratio - 0.5, first, last - 1)
    return source[::-1] if flip else source


def two_taps(
    source: Float64s, side: int, in_integers: bool
) -> tuple[npt.NDArray[np.int64], Float32s]:
    """Return two places of each of `source` (n,) and their weights in 2048ths, both (2, n).

    Past the edge is its mirror.
    """
    base = np.floor(source)
    share = (source - base) * WHOLE
    shares = np.rint(share) if in_integers else share
    places = np.stack([base, base + 1]).astype(np.int64) % (2 * side)
    weights = np.stack([WHOLE - shares, shares]).astype(np.float32)
    return np.minimum(places, 2 * side - 1 - places), weights
