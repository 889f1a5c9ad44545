"""A small prepared data set that tests share: drawn once a session, by the project itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from carray.data.manifest import Manifest
from carray.data.preparation.prepare import prepare
from carray.data.synthetic import render_toycars


@pytest.fixture(scope="session")
def toy_manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """12 classes of 10 toy cars, prepared with every split."""
    folder = tmp_path_factory.mktemp("toys")
    images = render_toycars(folder / "images", seed=3, images_per_class=10)
    return prepare(images, folder / "data", val_size=0.2, blend_size=0.15, test_size=0.15)


@pytest.fixture(scope="session")
def toy_data(toy_manifest: Manifest) -> Path:
    """The folder of `toy_manifest`."""
    return toy_manifest.folder
