"""Short trials on lanes against Ray's documented pattern, the same epoch loop in both.

    python tests/benchmarks/bench_lanes.py [--trials 6] [--workers 1] [--rounds 1]

The documented pattern is a Tune function trainable that calls `TorchTrainer.fit()`; every trial
runs to its end, so that its leak of stopped trials' placement groups never shows. Prints wall
seconds from the first call to the last trial's end, start-up of Ray left out of both.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any

from carray.api import toy_data
from carray.config import build_config
from carray.search.board import Board
from carray.search.cluster import connected
from carray.search.opening import StudyRequest
from carray.search.study import run_study
from carray.training.orders import EpochOrder

EPOCHS = 2
FIXED = {
    "backbone": "test_resnet",
    "pretrained": False,
    "image_size": 32,
    "epochs": EPOCHS,
    "device_batch_size": 16,
}
SPACE = (
    "version: 1\nmetric: val/log_loss\ndirection: minimize\nfixed: "
    + "{"
    + ", ".join(f"{k}: {str(v).lower()}" for k, v in FIXED.items())
    + "}\n"
    + "search:\n  optimizer.lr: {loguniform: [1e-4, 1e-2]}\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder, connected("local"):
        data = toy_data(Path(folder), images_per_class=16)
        for number in range(asked.rounds):
            aside = Path(folder) / str(number)
            aside.mkdir()
            lanes, waits = time_lanes(data, aside, asked.trials, asked.workers)
            nested = time_nested(data, aside, asked.trials, asked.workers)
            rows.append((lanes, nested, waits))
    print(f"\n{asked.trials} trials of {EPOCHS} epochs, {asked.workers} rank(s) each")
    print("round   lanes s   nested s   ratio")
    for number, (lanes, nested, waits) in enumerate(rows):
        print(f"{number:5d} {lanes:9.1f} {nested:10.1f}   x{nested / lanes:.1f}   {waits}")


class Gaps(Board):
    """Keeps the study's own word on how long lanes waited between two trials."""

    def __init__(self) -> None:
        super().__init__(stream=io.StringIO())
        self.waits = "-"

    def note(self, text: str) -> None:
        if text.startswith("lanes waited"):
            self.waits = text


def time_lanes(data: Path, folder: Path, trials: int, workers: int) -> tuple[float, str]:
    space = folder / "space.yaml"
    space.write_text(SPACE)
    request = StudyRequest(
        data=data,
        space=str(space),
        trials=trials,
        runs=str(folder / "runs"),
        workers_per_trial=workers,
        scheduler="none",
    )
    board = Gaps()
    start = time.monotonic()
    run_study(request, board)
    return time.monotonic() - start, board.waits


def time_nested(data: Path, folder: Path, trials: int, workers: int) -> float:
    import ray
    from ray import tune
    from ray.train import ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    address = ray.get_runtime_context().gcs_address

    def trainable(config: dict[str, Any]) -> None:
        TorchTrainer(
            nested_loop,
            train_loop_config=config,
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": 0.95}),
            run_config=ray.train.RunConfig(
                storage_path=str(folder / "train"),
                callbacks=[TuneReportCallback()],
                worker_runtime_env={"env_vars": {"RAY_ADDRESS": address, "OMP_NUM_THREADS": "1"}},
            ),
        ).fit()

    start = time.monotonic()
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0.01}),
        param_space={
            "lr": tune.loguniform(1e-4, 1e-2),
            "data": str(data.resolve()),
            "folder": str(folder / "nested"),
        },
        tune_config=tune.TuneConfig(
            num_samples=trials, max_concurrent_trials=2 // workers, metric="val/top1", mode="max"
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    return time.monotonic() - start


def nested_loop(config: dict[str, Any]) -> None:
    import uuid

    import torch
    from ray.train import get_context, report
    from ray.train.collective import broadcast_from_rank_zero

    from carray.training.ranks import SoloRanks, TorchRanks
    from carray.training.runner import TrialRunner

    many = get_context().get_world_size() > 1
    name = broadcast_from_rank_zero(uuid.uuid4().hex)
    runner = TrialRunner(TorchRanks() if many else SoloRanks(), torch.device("cpu"), 1)
    folder = Path(config["folder"]) / name
    folder.mkdir(parents=True, exist_ok=True)
    trial = build_config({**FIXED, "optimizer.lr": config["lr"]})
    for epoch in range(1, EPOCHS + 1):
        order = EpochOrder(
            trial=name, folder=str(folder), data=config["data"], config=trial, epoch=epoch
        )
        report(runner.run_epoch(order).metrics)
        if epoch == EPOCHS:
            runner.finish(order)


if __name__ == "__main__":
    main()
