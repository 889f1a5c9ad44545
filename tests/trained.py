"""Two small classifiers, really trained on toy cars, that several rooms' tests look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from carray.data.manifest import Manifest
from carray.data.preparation.prepare import prepare
from carray.data.synthetic import TWINS, render_toycars
from carray.records import StudyFolder, TrialState

RECIPE = {
    "backbone": "test_resnet",
    "pretrained": False,
    "image_size": 32,
    "device_batch_size": 16,
    "optimizer.weight_decay": 0.05,
    "optimizer.lr": 5e-3,
    "augment.strength": 0.1,
    "schedule.name": "one_cycle",
}


@dataclass(frozen=True)
class Trained:
    """A data set of nine models (twins are merged) in two folds, and a study of two trials."""

    data: Path
    runs: Path
    images: Path

    @property
    def manifest(self) -> Manifest:
        return Manifest.load(self.data)

    @property
    def study(self) -> StudyFolder:
        return StudyFolder(self.runs / "studies" / "single")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Some six seconds, once a session; 0.55 top-1 on nine classes."""
    from carray.training.train import train  # not sooner: torch reads OMP_NUM_THREADS once

    root = tmp_path_factory.mktemp("trained")
    images = render_toycars(root / "images", seed=3, images_per_class=30)
    merge = root / "merge.csv"
    merge.write_text("".join(f"{one} or {other},{one},{other}\n" for one, other in TWINS))
    prepare(
        images, root / "data", val_size=0.15, blend_size=0.2, test_size=0.2, folds=2, merge=merge
    )
    for seed, epochs in ((0, 14), (1, 5)):
        done = train(root / "data", {**RECIPE, "epochs": epochs, "seed": seed}, runs=root / "runs")
        assert done.state is TrialState.COMPLETE
    return Trained(root / "data", root / "runs", images)
