"""Steps replayed as CUDA graphs learn what steps run one by one learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from carray.config import Compute, TrialConfig
from carray.metrics import TRAIN_LOSS, VAL_LOG_LOSS
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner
from tests.training.orders import order_of, small_config

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


@needs_gpu
@pytest.mark.parametrize(
    "params",
    [
        {"dropout": 0.3, "drop_path": 0.2},
        {"finetune__policy": "gradual", "finetune__epoch": 1},
        {"augment__mixup": 0.2, "ema_decay": 0.9},
        {"precision": "fp16", "optimizer__clip_grad_norm": 1.0},
    ],
)
def test_the_metrics_are_the_same(tmp_path: Path, toy_data: Path, params: dict[str, Any]) -> None:
    config = small_config(epochs=3, **params)
    found = [losses_of(tmp_path / str(on), toy_data, config, on) for on in (False, True)]
    assert found[0] == found[1]


def losses_of(
    folder: Path, data: Path, config: TrialConfig, graphs: bool
) -> list[tuple[float, float]]:
    """Return each epoch's losses of a new trial on the GPU."""
    precision = "bf16" if config.precision == "auto" else config.precision
    compute = Compute(precision=precision, channels_last=True, graphs=graphs)
    runner = TrialRunner(SoloRanks(), torch.device("cuda"))
    losses = []
    for epoch in range(1, config.epochs + 1):
        order = order_of(folder, data, config, epoch).model_copy(update={"compute": compute})
        row = runner.run_epoch(order).metrics
        losses.append((row[TRAIN_LOSS], row[VAL_LOG_LOSS]))
    runner.release()
    return losses


@needs_gpu
def test_a_trials_graphs_leave_with_it(tmp_path: Path, toy_data: Path) -> None:
    runner, device = TrialRunner(SoloRanks(), torch.device("cuda")), torch.device("cuda")
    compute = Compute(precision="bf16", channels_last=True, graphs=True)
    held = []
    for number in range(4):
        order = order_of(tmp_path / str(number), toy_data, small_config(epochs=1))
        runner.run_epoch(order.model_copy(update={"compute": compute}))
        runner.release()
        held.append(torch.cuda.memory_allocated(device))
    assert held[1:] == [held[0]] * 3
