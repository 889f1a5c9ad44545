"""A head-only trial on stored features against one that runs the frozen backbone every epoch.

    python tests/benchmarks/bench_head_only.py [DATA] [--weights DIR] [--backbone mobilenetv2_100]

DATA is a prepared data set (`carray data prepare`); toy cars where none is given. The trial is the
same in both: policy `head_only`, its epochs, its evaluations, its logits. The first one of a study
fills the store of features; what counts is each one after it. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch

from carray.api import toy_data
from carray.config import build_config
from carray.metrics import VAL_TOP1
from carray.training.epoch_order import EpochOrder
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if asked.weights:
        os.environ["CARRAY_WEIGHTS"] = str(asked.weights.resolve())
    with tempfile.TemporaryDirectory() as folder:
        data = asked.data or toy_data(Path(folder) / "toys")
        trials = Trials(data, Path(folder), asked)
        first = trials.run(views=2)
        rounds = [(trials.run(views=2), trials.run(views=0)) for _ in range(asked.rounds)]
    print(f"{asked.backbone}, {asked.size} px, {asked.epochs} epochs, {asked.threads} thread(s)")
    print(f"{'head_only trial':<34}{'seconds':>9}{'val top-1':>11}")
    show("on features, the first", [first])
    show("on features, each one after it", [on for on, _ in rounds])
    show("the backbone runs every epoch", [off for _, off in rounds])
    ratios = [off[0] / on[0] for on, off in rounds]
    print(f"ratio x{statistics.median(ratios):.0f} ({min(ratios):.0f} to {max(ratios):.0f})")


def show(what: str, runs: list[tuple[float, float]]) -> None:
    seconds, top1 = (statistics.median(column) for column in zip(*runs, strict=True))
    print(f"{what:<34}{seconds:>9.2f}{top1:>11.3f}")


class Trials:
    """Whole head-only trials on one runner, each with a learning rate of its own."""

    def __init__(self, data: Path, folder: Path, asked: argparse.Namespace) -> None:
        self._data, self._folder, self._asked = data, folder, asked
        self._runner = TrialRunner(SoloRanks(), torch.device("cpu"), asked.threads)
        self._number = 0

    def run(self, views: int) -> tuple[float, float]:
        """Return (wall seconds, val top-1) of the next trial."""
        self._number += 1
        asked = self._asked
        config = build_config(
            {
                "backbone": asked.backbone,
                "pretrained": bool(asked.weights),
                "image_size": asked.size,
                "epochs": asked.epochs,
                "optimizer.lr": 1e-3 * (1 + 0.01 * self._number),
                "finetune.policy": "head_only",
                "finetune.feature_views": views,
            }
        )
        order = EpochOrder(
            trial=f"bench/{self._number:04d}",
            folder=str(self._folder / str(self._number)),
            data=str(self._data),
            config=config,
            epoch=1,
        )
        start = time.perf_counter()
        for epoch in range(1, asked.epochs + 1):
            outcome = self._runner.run_epoch(order.model_copy(update={"epoch": epoch}))
        self._runner.finish(order.model_copy(update={"epoch": asked.epochs}))
        return time.perf_counter() - start, outcome.metrics[VAL_TOP1]


if __name__ == "__main__":
    main()
