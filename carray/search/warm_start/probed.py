"""What `carray probe` has found on a data set, and the order that it gives to starting points."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import Any

from carray.json_file import JsonFile
from carray.runs_folder import RunsFolder
from carray.search.space.space import BLOCK, SearchSpace

HASH_DIGITS = 12  # of the data's hash, in the file's name


class ProbeRecord(JsonFile):
    """How well a linear probe does on the frozen features of each backbone."""

    version: int = 1
    manifest_hash: str
    image_size: int
    losses: dict[str, float]
    """Log-loss on `val` by timm's whole name."""

    @property
    def ranked(self) -> list[str]:
        """The backbones, the best first."""
        return sorted(self.losses, key=self.losses.__getitem__)


def probe_file(runs: RunsFolder, manifest_hash: str) -> Path:
    """Return where the probe of a data set is recorded, there or not."""
    return runs.probes / f"{manifest_hash[:HASH_DIGITS]}.json"


def read_probe(runs: RunsFolder, manifest_hash: str) -> ProbeRecord | None:
    """Return what was found on the data of this hash; None where nothing was.

    Raises:
        RecordError: the record can't be read.
    """
    file = probe_file(runs, manifest_hash)
    return ProbeRecord.read(file) if manifest_hash and file.exists() else None


def in_probe_order(
    space: SearchSpace, points: Sequence[dict[str, Any]], probe: ProbeRecord
) -> list[dict[str, Any]]:
    """Return points by Optuna's names, those of the probe's best backbone first.

    Points of one backbone, and those of backbones that weren't probed, keep their order.
    """
    from carray.models.registry import full_name

    known = {full_name(name): probe.losses.get(full_name(name), inf) for name in space.backbones()}
    return sorted(points, key=lambda point: known.get(full_name(_backbone_of(space, point)), inf))


def _backbone_of(space: SearchSpace, point: dict[str, Any]) -> str:
    """Return the point's backbone; of one that leaves it open, the first that may be drawn."""
    dotted = space.dotted(point)
    branch = dict(space.branches())[dotted.get(BLOCK)]
    return str(dotted.get("backbone") or branch.values_of("backbone")[0])
