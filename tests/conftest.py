"""Fixtures that several rooms share, and the environment that every test runs in.

What a new test can have, cheapest first, in CPU seconds of one slow core:

- `tests.tracking.stores.with_store`: a tracking store, copied; to make its schema takes over one.
- `local` and `studies_here` of `tests.search.studies`: whole studies without Ray, in which nothing
  is trained (`tests.lanes.fakes`); about one each.
- `toy_data`, `toy_manifest`: 76 training images, once a session 3; an epoch at 32 px 0.4.
- `trained`: two nets in a study, once a session 20; copy its runs before you change them.
- `start_ranks` of `carray.training.rank_processes`: two ranks, 12 once a session for their imports.
- a subprocess that imports torch and timm: 10.
- `ray_instance`: one Ray, once a session 12; each rank of a lane on it 15, each lane 12 more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer.main

from carray.training.compute.collector import set_libraries_aside
from tests.opened import OPENED
from tests.toys import toy_data, toy_manifest
from tests.trained import trained

__all__ = ["toy_data", "toy_manifest", "trained"]

os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "CARRAY_RUNS", "CARRAY_WEIGHTS", "COLUMNS"):
    os.environ.pop(_name, None)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
typer.main.get_command = cache(typer.main.get_command)  # to make carray's takes 0.2 s


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m ray`, pass over files without such a test: to import them takes as long as one."""
    if config.option.markexpr == "ray" and collection_path.name.startswith("test_"):
        return None if "mark.ray" in collection_path.read_text() else True
    return None


def pytest_collection_finish() -> None:
    """Take what all tests import out of the collector's way: a twentieth of their time."""
    set_libraries_aside()


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close what the test has opened."""
    with OPENED:
        yield


@pytest.fixture(autouse=True, scope="module")
def imports_aside() -> Iterator[None]:
    """Take what a file's tests imported out of the way too: every trial's end is a collection."""
    before = len(sys.modules)
    yield
    if len(sys.modules) > before + 100:
        set_libraries_aside.cache_clear()
        set_libraries_aside()


@pytest.fixture(scope="session")
def ray_instance() -> Iterator[None]:
    """One local Ray for all tests that need one, without a dashboard."""
    from carray.search.placement.ray_cluster import connected

    with connected("local"):
        yield
