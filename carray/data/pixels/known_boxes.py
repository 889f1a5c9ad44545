"""Where in an image's square its box lies, for crops that keep it."""

from __future__ import annotations

import numpy as np

from carray.config import AugmentConfig, Fit
from carray.data.manifest import BOX_COLUMNS, Manifest
from carray.typing import AnyFloats


def square_boxes(manifest: Manifest, fit: Fit) -> AnyFloats | None:
    """Return (N, 4) boxes of the included images: x1, y1, x2, y2 as shares of a square's side.

    NaN where an image has none. None where no image has one, or all are cut to theirs already.
    """
    pixels = manifest.included[list(BOX_COLUMNS)].to_numpy(np.float64)
    known = (pixels[:, 0] >= 0) & (pixels[:, 2:] > pixels[:, :2]).all(1)
    if manifest.crop == "box" or not known.any() or pixels.max() <= 1:  # 1: shares, not pixels
        return None
    pixels[~known] = np.nan
    return boxes_in_squares(
        pixels, manifest.included[["width", "height"]].to_numpy(np.float64), fit
    )


def boxes_in_squares(pixels: AnyFloats, sides: AnyFloats, fit: Fit) -> AnyFloats:
    """Return (N, 4) boxes as shares of their squares' sides, of boxes in pixels.

    Args:
        pixels: x1, y1, x2, y2 in the whole images, (N, 4).
        sides: widths and heights of these, (N, 2).
        fit: how an image becomes a square.
    """
    seen = sides  # what of the image becomes the square, as `make_square` has it
    if fit != "squash":
        edges = sides.min(1) if fit == "crop" else sides.max(1)
        seen = np.stack([edges, edges], 1)
    shares: AnyFloats = (pixels + np.tile((seen - sides) / 2, 2)) / np.tile(seen, 2)
    return shares.clip(0, 1)


def boxes_note(augment: AugmentConfig, manifest: Manifest) -> str:
    """Say where crops that should keep boxes know of none; "" otherwise."""
    if not augment.crop_keeps_box or square_boxes(manifest, "squash") is not None:
        return ""
    cut = "its images are cut to their boxes already"
    why = cut if manifest.crop == "box" else "its images have no boxes"
    return f"augment.crop_keeps_box changes nothing on {manifest.name}: {why}"
