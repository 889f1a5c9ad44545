"""Fixtures that several rooms share, and the environment that every test runs in."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.opened import OPENED
from tests.toys import toy_data, toy_manifest
from tests.trained import trained

__all__ = ["toy_data", "toy_manifest", "trained"]

os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "CARRAY_RUNS", "CARRAY_WEIGHTS"):
    os.environ.pop(_name, None)
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close what the test has opened."""
    with OPENED:
        yield


@pytest.fixture(scope="session")
def ray_instance() -> Iterator[None]:
    """One local Ray for all tests that need one, without a dashboard."""
    from carray.search.placement.ray_cluster import connected

    with connected("local"):
        yield
