"""A package that can say all that a server says."""

from __future__ import annotations

from pathlib import Path

import pytest

from carray.analysis.calibrate import calibrate_model
from carray.inference.package import write_package
from tests.trained import Trained


@pytest.fixture(scope="module")
def package(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated package that keeps pictures of its training images."""
    root = tmp_path_factory.mktemp("calibrated")
    folder = root / "models" / "toy"
    write_package(folder, trained.study.record(), [trained.study.trial(0)])
    found = calibrate_model(str(folder), data=trained.data, runs=root, neighbours=True)
    assert f"of {len(trained.manifest.rows('train'))} training images are kept" in found.notes[0]
    return folder
