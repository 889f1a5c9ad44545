"""The training images most like a photograph: their features and small pictures, in the package.

`neighbours.npz` stands in the package; `carray calibrate --neighbours` writes it. Where it is
served, no data are needed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from carray.data.manifest import Manifest
from carray.files import read_array, write_npz
from carray.inference.predictor import BATCH_IMAGES, Member, Model, Square, open_stores
from carray.progress import silent
from carray.typing import Float32s, Labels, Progress, Rows

FILE = "neighbours.npz"
MOST_IMAGES = 10_000
PICTURE_SIDE = 128  # pixels
QUALITY = 80  # of the JPEGs


@dataclass(frozen=True)
class Neighbour:
    """One training image."""

    label: int
    """Its class index."""
    similarity: float
    """The cosine of its features and the photograph's, at most 1."""
    picture: bytes
    """A small square JPEG."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Training images, as the model's weightiest member sees them."""

    features: Float32s
    """(images, width), each of length 1."""
    labels: Labels
    pictures: npt.NDArray[np.uint8]
    """All JPEGs, one after the other."""
    ends: npt.NDArray[np.int64]
    """Where each picture ends."""

    @classmethod
    def of_package(cls, package: Path) -> Self | None:
        """Return what stands in a package; None where nothing does.

        Raises:
            RecordError: it is broken.
        """
        names = ("features", "labels", "pictures", "ends")
        found = [read_array(package / FILE, name) for name in names]
        return None if any(each is None for each in found) else cls(*found)

    def nearest(self, feature: Float32s, count: int) -> list[Neighbour]:
        """Return the `count` images nearest to a feature (width,) of length 1, nearest first."""
        similarities = self.features @ feature
        found = []
        for place in np.argsort(-similarities, kind="stable")[:count].tolist():
            start = int(self.ends[place - 1]) if place else 0
            picture = self.pictures[start : int(self.ends[place])].tobytes()
            found.append(Neighbour(int(self.labels[place]), float(similarities[place]), picture))
        return found


def looker(model: Model) -> Member:
    """Return the member whose features are compared: the weightiest."""
    weights = model.card.combination.average.weights
    return model.members[int(np.argmax(weights))]


def unit_features(member: Member, squares: Square) -> Float32s:
    """Return a member's features (images, width) of squares, each of length 1."""
    features = member.features(squares)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, 1e-12), np.float32)


def write_neighbours(
    package: Path, model: Model, manifest: Manifest, progress: Progress = silent
) -> int:
    """Write the training images' features and pictures into a package; return how many.

    Of more than `MOST_IMAGES`, as many are taken evenly.

    Raises:
        DataError: an image is gone or has changed since it was prepared.
    """
    rows = _evenly(manifest.rows("train"))
    member = looker(model)
    pixels = open_stores(manifest, [member], progress)[member.geometry]
    features, pictures = [], []
    with progress("neighbours", len(rows)) as advance:
        for start in range(0, len(rows), BATCH_IMAGES):
            some = np.asarray(pixels[rows[start : start + BATCH_IMAGES]])
            features.append(unit_features(member, some).astype(np.float16))
            pictures += [_jpeg(square) for square in some]
            advance(len(some))
    arrays = {
        "features": np.concatenate(features).astype(np.float32),
        "labels": manifest.labels[rows],
        "pictures": np.frombuffer(b"".join(pictures), np.uint8),
        "ends": np.cumsum([len(picture) for picture in pictures]),
    }
    write_npz(package / FILE, arrays)
    return len(rows)


def _evenly(rows: Rows) -> Rows:
    if len(rows) <= MOST_IMAGES:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MOST_IMAGES).astype(np.int64)]


def _jpeg(square: Square) -> bytes:
    kept = io.BytesIO()
    image = Image.fromarray(square).resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)
    image.save(kept, "JPEG", quality=QUALITY)
    return kept.getvalue()
