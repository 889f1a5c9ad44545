"""Pooled features of a model's backbones on a prepared data set, as npz and parquet."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from carray.data.manifest import Manifest
from carray.errors import ConfigError
from carray.files import write_npz, written_aside
from carray.inference.inputs import find_package
from carray.json_file import JsonResult
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.typing import Progress

SUFFIXES = (".npz", ".parquet")


@dataclass(frozen=True)
class FeatureFiles(JsonResult):
    """What `export_features` wrote."""

    files: tuple[Path, ...]
    images: int
    width: int
    """Features an image, over all members."""
    members: tuple[str, ...]
    """`TRIAL: WIDTH`, in the order of the columns."""


def export_features(
    model: str,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    runs: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> FeatureFiles:
    """Write the pooled features of every included image of a data set, float32.

    The npz holds `features` (images, width), `labels`, `splits`, `image_ids`, `classes` and
    `manifest_hash`; the parquet one row an image with the columns `image_id`, `split`, `label`,
    `class_index`, and `f0`, `f1`, ...; an ensemble's members stand side by side.

    Args:
        model: a package's name or folder, or a trial (`STUDY/NUMBER`).
        data: a folder made by `carray.prepare`; its classes may be others.
        out: a `.npz` or `.parquet` file; without an ending both are written.
        runs: the runs folder.
        progress: shows how far the images are.

    Raises:
        RecordError: there is no such model.
        DataError: `data` is no prepared data set.
        ConfigError: `out` ends otherwise.
    """
    targets = _targets(Path(out))
    from carray.data.pixels.store import open_store
    from carray.inference.predictor import BATCH_IMAGES, load_model

    manifest = Manifest.load(data)
    loaded = load_model(find_package(RunsFolder.at(runs), model))
    columns = []
    total = len(manifest.included)
    with progress("features", total * len(loaded.members)) as advance:
        for member in loaded.members:
            pixels = open_store(manifest, *member.geometry, progress).pixels
            parts = []
            for start in range(0, total, BATCH_IMAGES):
                parts.append(member.features(np.asarray(pixels[start : start + BATCH_IMAGES])))
                advance(len(parts[-1]))
            columns.append(np.concatenate(parts))
    features = np.concatenate(columns, axis=1)
    for target in targets:
        _write(target, manifest, features)
    return FeatureFiles(
        targets,
        total,
        features.shape[1],
        tuple(
            f"{member.card.trial}: {own.shape[1]}"
            for member, own in zip(loaded.members, columns, strict=True)
        ),
    )


def _targets(out: Path) -> tuple[Path, ...]:
    if out.suffix in SUFFIXES:
        return (out,)
    if out.suffix:
        raise ConfigError(f"--out {out} must end in .npz or .parquet, or in nothing for both")
    return tuple(out.with_suffix(suffix) for suffix in SUFFIXES)


def _write(target: Path, manifest: Manifest, features: npt.NDArray[np.float32]) -> None:
    rows = manifest.included
    if target.suffix == ".npz":
        columns = {
            "features": features,
            "labels": manifest.labels,
            "splits": rows["split"].to_numpy(str),
            "image_ids": rows["image_id"].to_numpy(str),
            "classes": np.array(manifest.classes),
            "manifest_hash": np.array(manifest.hash),
        }
        write_npz(target, columns)
        return
    import pandas as pd

    known = rows[["image_id", "split", "label", "class_index"]]
    named = pd.DataFrame(features, columns=[f"f{i}" for i in range(features.shape[1])])
    with written_aside(target) as aside:
        pd.concat([known, named], axis=1).to_parquet(aside, index=False)
