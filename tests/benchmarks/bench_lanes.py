"""Short trials on lanes against Ray's documented pattern, the same epoch loop in both.

    python tests/benchmarks/bench_lanes.py [--trials 20] [--workers 1] [--nested-trials 20]

The documented pattern is a Tune function trainable that calls `TorchTrainer.fit()`; every trial
runs to its end, so that its leak of stopped trials' placement groups never shows. Wall seconds
count from the first call to the last trial's end, the start of lanes and of worker groups included,
Ray's own start left out of both; where fewer nested trials run, the ratio is per trial. Gaps: how
long a lane had nothing to do between two trials (the study's own word), and from a nested trial's
last report to when the worker of the trial that takes its place asks for its first epoch.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from carray.api import toy_data
from carray.config import build_config
from carray.records import TrialRecord
from carray.search.observers.console import Board
from carray.search.placement.ray_cluster import connected
from carray.search.request import StudyRequest
from carray.search.run import run_study
from carray.training.epoch_order import EpochOrder

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
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--nested-trials", type=int, help="as many as --trials where not given")
    asked = parser.parse_args()
    trials, nested_trials = asked.trials, asked.nested_trials or asked.trials
    with tempfile.TemporaryDirectory() as name, connected("local"):
        folder = Path(name)
        data = toy_data(folder, images_per_class=16)
        lanes, waits, first = time_lanes(data, folder, trials, asked.workers)
        print(f"{trials} trials of {EPOCHS} epochs, {asked.workers} rank(s) each")
        print("         trials   wall s   s a trial   first epoch's end s   gaps between trials")
        print(row("lanes", trials, lanes, first, waits), flush=True)
        nested, gaps, first = time_nested(data, folder, nested_trials, asked.workers)
        print(row("nested", nested_trials, nested, first, gaps))
    print(f"ratio    x{nested / nested_trials / (lanes / trials):.1f} a trial")


def row(name: str, trials: int, seconds: float, first: float, gaps: str) -> str:
    return f"{name:8s} {trials:6d} {seconds:8.1f} {seconds / trials:11.2f} {first:21.1f}   {gaps}"


class Gaps(Board):
    """Keeps the study's own word on how long lanes waited between two trials."""

    def __init__(self) -> None:
        super().__init__(stream=io.StringIO())
        self.waits = "-"
        self.first_epoch_at = 0.0

    def epoch_ended(self, record: TrialRecord) -> None:
        self.first_epoch_at = self.first_epoch_at or time.monotonic()

    def note(self, text: str) -> None:
        if text.startswith("lanes waited"):
            self.waits = text.removeprefix("lanes waited ").removesuffix(", between two trials")


def time_lanes(data: Path, folder: Path, trials: int, workers: int) -> tuple[float, str, float]:
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
    return time.monotonic() - start, board.waits, board.first_epoch_at - start


def time_nested(data: Path, folder: Path, trials: int, workers: int) -> tuple[float, str, float]:
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

    slots, start, started_at = 2 // workers, time.monotonic(), time.time()
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 0.01}),
        param_space={
            "lr": tune.loguniform(1e-4, 1e-2),
            "data": str(data.resolve()),
            "folder": str(folder / "nested"),
        },
        tune_config=tune.TuneConfig(
            num_samples=trials, max_concurrent_trials=slots, metric="val/top1", mode="max"
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "tune"), verbose=0),
    ).fit()
    seconds = time.monotonic() - start
    times = [json.loads(file.read_text()) for file in (folder / "nested").glob("*/times.json")]
    assert len(times) == trials, f"only {len(times)} of {trials} nested trials ended"
    starts, firsts, ends = (sorted(column) for column in zip(*times, strict=True))
    gaps = [begun - ended for begun, ended in zip(starts[slots:], ends, strict=False)]
    told = f"{median(gaps):.2f} s (median), at most {max(gaps):.2f} s" if gaps else "-"
    return seconds, told, firsts[0] - started_at


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
    times = [time.time()]
    for epoch in range(1, EPOCHS + 1):
        order = EpochOrder(
            trial=name, folder=str(folder), data=config["data"], config=trial, epoch=epoch
        )
        report(runner.run_epoch(order).metrics)
        times.append(time.time())
        if epoch == EPOCHS:
            runner.finish(order)
    if get_context().get_world_rank() == 0:
        (folder / "times.json").write_text(json.dumps([times[0], times[1], times[-1]]))


if __name__ == "__main__":
    main()
