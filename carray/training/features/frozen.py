"""Features of a frozen backbone, computed once and shared on disk, so that heads train in seconds.

DATA/features/KEY/
  view-00.bin  view-00.done   one row an image of the manifest, and which rows are there
  used                        touched at each use: the keys used longest ago make room

View 0 is the whole image, as it is evaluated; the others are augmented draws. KEY is a hash of
all that the features depend on: pixels, weights, size, numbers, and augmentation.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from carray.config import AugmentConfig, InputSpec, TrialConfig
from carray.data.pixels.augment_ranges import DIALS
from carray.data.pixels.loader import BatchPlan, Loader, ViewPlan, to_device
from carray.files import (
    by_last_use,
    folder_bytes,
    locked,
    reserve_disk_space,
    write_text,
    written_aside,
)
from carray.models.backbones import feature_width, shapes_alone
from carray.models.classifier import Classifier
from carray.progress import silent
from carray.training.dataset import TrialData
from carray.training.trial_state import Numerics
from carray.typing import GIB, Progress, Rows

BATCH = 64  # images that the backbone takes at once

Features = npt.NDArray[Any]  # (images of the manifest, ...)


@dataclass(frozen=True)
class FeatureBatch:
    """What a head trains on in one step."""

    features: Tensor
    """(B, D), or (B, P, D) for ML-Decoder."""
    labels: Tensor
    """(B,) int64."""
    mix: None = None

    def __len__(self) -> int:
        return len(self.labels)


def features_to_device(batch: FeatureBatch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the batch's features and labels on the device."""
    return batch.features.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)


@dataclass(frozen=True)
class FeaturePlan(BatchPlan[FeatureBatch]):
    """Batches of stored features, in the order of `rows`."""

    features: Features
    labels: Rows
    rows: Rows
    batch_size: int
    drops_last: bool

    def __len__(self) -> int:
        whole, rest = divmod(len(self.rows), self.batch_size)
        return whole + (rest > 0 and not self.drops_last)

    def make(self, index: int) -> FeatureBatch:
        """Return batch `index`."""
        rows = self.rows[index * self.batch_size :][: self.batch_size]
        features = torch.from_numpy(self.features[rows].astype(np.float32))
        return FeatureBatch(features, torch.from_numpy(self.labels[rows]))


@dataclass(frozen=True)
class FrozenBackbone:
    """A backbone that doesn't change, and all that its features depend on."""

    classifier: Classifier
    config: TrialConfig
    data: TrialData
    spec: InputSpec
    numerics: Numerics
    initialisation: str

    def features(
        self, rows: Rows, view: int, num_loaders: int, progress: Progress = silent
    ) -> Features | None:
        """Return the features of one view, `rows` of them filled; None if they'd burst the budget.

        Of processes that ask at once one computes, the others wait.
        """
        folder = Path(self.data.folder) / "features" / self._key(view)
        shape = self._shape(folder / "shape.json")
        dtype = np.dtype(np.float32 if len(shape) == 1 else np.float16)
        images = len(self.data.images.labels)
        need = images * int(np.prod(shape)) * dtype.itemsize
        if need > self.data.budget_gib * GIB:
            return None
        with locked(folder.parent / f".lock-{folder.name}"):
            folder.mkdir(exist_ok=True)
            file, done_file = folder / f"view-{view:02d}.bin", folder / f"view-{view:02d}.done"
            done = _read_done(done_file, images) if file.exists() else np.zeros(images, np.bool_)
            if not done[rows].all():
                _make_room(folder, need, self.data.budget_gib)
                mode = "r+" if file.exists() and done.any() else "w+"
                stored = np.memmap(file, dtype, mode, shape=(images, *shape))  # type: ignore[call-overload]
                reserve_disk_space(file, need)
                self._fill(stored, rows[~done[rows]], view, num_loaders, progress)
                stored.flush()
                done[rows] = True
                with written_aside(done_file) as aside:
                    done.tofile(aside)
            (folder / "used").touch()
        return np.memmap(file, dtype, "r", shape=(images, *shape))

    @torch.inference_mode()
    def _fill(
        self, stored: Features, rows: Rows, view: int, num_loaders: int, progress: Progress
    ) -> None:
        self.classifier.backbone.eval()
        config, on_device = self.config, self.numerics.device.type != "cpu"
        plan = ViewPlan(
            self.data.images, rows, BATCH, config.image_size, config.augment, view, on_device
        )
        at = 0
        with progress(f"features of {config.backbone}", len(rows)) as advance:
            for batch in Loader(plan, num_loaders):
                images, _ = to_device(batch, self.numerics.device)
                with self.numerics.autocast():
                    features = self.classifier.features(self.numerics.normalise(images))
                stored[rows[at : at + len(batch)]] = features.float().cpu().numpy()
                at += len(batch)
                advance(len(batch))

    def _shape(self, file: Path) -> tuple[int, ...]:
        """Return the shape of one image's features; of a map it is known once it was asked for."""
        if not self.classifier.reads_map:
            return (feature_width(self.classifier.backbone),)
        if file.exists():
            return tuple(json.loads(file.read_text(encoding="utf-8")))
        side = self.config.image_size
        with torch.inference_mode(), shapes_alone():
            shadow = Classifier(self.config, 2).eval()
            shape = tuple(shadow.features(torch.empty(1, 3, side, side)).shape[1:])
        write_text(file, json.dumps(shape))
        return shape

    def _key(self, view: int) -> str:
        config = self.config
        augment = config.augment if view else None
        content = {
            "data": self.data.manifest_hash,
            "weights": self.initialisation,
            "backbone": config.backbone,
            "scratch": config.scratch.model_dump(),
            "size": (config.image_size, config.fit),
            "spec": self.spec.model_dump(),
            "dtype": str(self.numerics.autocast_dtype),
            "is_map": self.classifier.reads_map,
            "augment": _augment_key(augment) if augment else None,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _augment_key(augment: AugmentConfig) -> list[object]:
    """Return what a view depends on; dials of their own are named where they are set."""
    dials = "crop_min_area", *DIALS
    own = {name: value for name in dials if (value := getattr(augment, name)) is not None}
    off = AugmentConfig()
    later = (
        "erase_boxes",
        "perspective",
        "blur_kind",
        "crop_keeps_box",
    )  # keys of before know nothing of them
    own |= {name: v for name in later if (v := getattr(augment, name)) != getattr(off, name)}
    return [augment.strength, augment.flip, augment.blur, *([own] if own else [])]


def _read_done(file: Path, images: int) -> npt.NDArray[np.bool_]:
    try:
        done = np.fromfile(file, np.bool_)
    except OSError:
        done = np.zeros(0, np.bool_)
    return done if len(done) == images else np.zeros(images, np.bool_)


def _make_room(folder: Path, need: int, budget_gib: float) -> None:
    """Remove the keys used longest ago until `need` bytes more fit the budget."""
    marks = folder.parent.glob("*/used")
    others = [other for other in by_last_use(marks) if other != folder]
    taken = folder_bytes(folder.parent)
    while others and taken + need > budget_gib * GIB:
        gone = others.pop(0)
        taken -= folder_bytes(gone)
        shutil.rmtree(gone, ignore_errors=True)
