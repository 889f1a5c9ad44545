"""Packing: how many trials share a GPU, what is said of it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carray.data.manifest import Manifest
from carray.search.placement.gpu_sharing import (
    LARGEST,
    MARGIN,
    MOST_LANES,
    MeasuredMemory,
    gpu_share_text,
    lanes_per_gpu,
    resolve_gpu_share,
    share_of_gpu,
)
from carray.search.placement.plan import make_plan
from carray.search.preflight import typical_configs
from carray.search.space.loading import load_space
from carray.search.space.space import SearchSpace

SPACE = """
version: 1
metric: val/log_loss
direction: minimize
fixed: {epochs: 2, pretrained: false}
search:
  backbone: {choice: [test_resnet, lcnet_035]}
  image_size: {choice: [64, 128, 96]}
  device_batch_size: {choice: [16, 8]}
  optimizer.lr: {loguniform: [1e-4, 1e-2]}
"""


@pytest.mark.parametrize(
    ("trial_gib", "lanes"), [(20, 3), (36, 2), (36.1, 1), (79, 1), (float("inf"), 1), (0.5, 8)]
)
def test_a_gpu_of_80_gib_takes_what_fits_below_its_margin(trial_gib: float, lanes: int) -> None:
    assert lanes_per_gpu(trial_gib, 80) == lanes


@given(st.floats(0.01, 1000), st.floats(1, 300))
def test_packed_trials_leave_the_margin_free(trial_gib: float, gpu_gib: float) -> None:
    lanes = lanes_per_gpu(trial_gib, gpu_gib)
    assert lanes == 1 or lanes * trial_gib <= (1 - MARGIN) * gpu_gib + 1e-6
    assert lanes == MOST_LANES or (lanes + 1) * trial_gib > (1 - MARGIN) * gpu_gib - 1e-6


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="trial_gib=0"):
        lanes_per_gpu(0, 80)


@pytest.mark.parametrize("lanes", range(1, MOST_LANES + 1))
def test_the_plan_has_as_many_lanes_on_every_gpu(lanes: int) -> None:
    nodes = [{"CPU": 96.0, "GPU": 8.0}, {"CPU": 16.0, "GPU": 1.0}]
    assert make_plan(nodes, trials=1000, gpus_per_trial=share_of_gpu(lanes)).lanes == 9 * lanes


def test_the_largest_trial_decides_and_is_named(tmp_path: Path) -> None:
    configs = typical_configs(space_in(tmp_path), LARGEST)
    assert [config.backbone for config in configs] == ["test_resnet", "lcnet_035"]
    assert {(config.image_size, config.device_batch_size) for config in configs} == {(128, 16)}
    told = gpu_share_text(configs, MeasuredMemory(79.2, (11.25, 3.0)), 6)
    assert told == "packing: 6 trials a GPU of 79 GiB; test_resnet, 128 px, batch 16 takes 11.2 GiB"
    told = gpu_share_text(configs, MeasuredMemory(8.0, (1.0, float("inf"))), 1)
    assert told.endswith("1 trial a GPU of 8 GiB; lcnet_035, 128 px, batch 16 takes more than that")


def test_nothing_is_measured_where_nothing_can_be_packed(toy_data: Path, tmp_path: Path) -> None:
    space, manifest, said = space_in(tmp_path), Manifest.load(toy_data), list[str]()
    nodes = [{"CPU": 2.0}]
    for gpus in (0.5, None):
        assert resolve_gpu_share(gpus, space, manifest, nodes, said.append) == gpus
    assert said == []
    assert resolve_gpu_share("auto", space, manifest, nodes, said.append) is None
    assert said == ["packing: the cluster has no GPU, trials run on CPUs"]


def space_in(folder: Path) -> SearchSpace:
    file = folder / "space.yaml"
    file.write_text(SPACE)
    return load_space(str(file))
