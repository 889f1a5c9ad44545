"""Which batch norm statistics judge an epoch best: bench_batch_norms.py DATA --weights DIR.

A pretrained backbone is fine-tuned by its known recipe with epochs of 8, 30, 100 and 300 steps and
batches of 16 and 64. After each epoch the same weights are judged on `val` and `blend` by
running statistics of several momenta, and by statistics measured on training images, as they are
evaluated (`measured`) or as they are trained on (`augmented`). Training is the same for all, since
steps see their batches' own statistics. Epochs of more images than there are go through them again.

Each row tells a batch and a length: the log-loss by torch's own running statistics (momentum 0.1),
and what the others differ from it, over all epochs and in the last one (+- the standard error over
seeds). --out keeps what was measured, line by line, and is gone on with.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from carray.data.pixels.loader import EvalPlan, Loader, TrainPlan, to_device
from carray.files import add_json_line, read_json_lines
from carray.models.freezing import BatchNorm
from carray.models.recipes import complete_config
from carray.training.dataset import open_data
from carray.training.evaluation import eval_plan, predict_batches
from carray.training.loop import train_one_epoch
from carray.training.ranks import SoloRanks
from carray.training.trial_state import LiveTrial, build_live, default_compute
from carray.typing import Rows

EPOCHS = {8: 6, 30: 4, 100: 3, 300: 2}  # by the steps of each
MOMENTA = (0.1, 0.2, 0.3)
MEASURED = (8, 32, 128, 512)
AUGMENTED = (512,)
CPU = torch.device("cpu")
State = list[Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="a prepared data set")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_035")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, nargs="+", default=list(EPOCHS), choices=EPOCHS)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON lines")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = read_json_lines(asked.out) if asked.out else []
    for seed, steps, batch in product(range(asked.seeds), asked.steps, asked.batches):
        case = Case(asked.data, asked.weights, asked.backbone, asked.size, steps, batch, seed)
        if case.key not in {row["case"] for row in found}:
            rows = list(rows_of(case))
            found += rows
            for row in rows if asked.out else ():
                add_json_line(asked.out, row)
    print("\n".join(lines_of(found)))


@dataclass(frozen=True)
class Case:
    """One training."""

    data: Path
    weights: Path
    backbone: str
    size: int
    steps: int
    batch: int
    seed: int

    @property
    def key(self) -> str:
        """Name it in the file of what was measured."""
        name = self.data.resolve().name
        return f"{name} {self.backbone}@{self.size} {self.batch}x{self.steps} seed {self.seed}"

    def live(self) -> LiveTrial:
        """Build the trial, with so many training images that an epoch has its steps."""
        images = self.steps * self.batch
        params = {
            "backbone": self.backbone,
            "image_size": self.size,
            "device_batch_size": self.batch,
            "epochs": EPOCHS[self.steps],
            "seed": self.seed,
        }
        config = complete_config(params, images)
        data = open_data(str(self.data), config)
        rng = np.random.default_rng(self.seed)
        repeated = np.concatenate(
            [rng.permutation(data.train) for _ in range(-(-images // len(data.train)))]
        )
        data = replace(data, train=repeated[:images])
        choose = partial(default_compute, config, device=CPU)
        return build_live(self.key, config, data, CPU, choose, self.weights)


@dataclass
class Running:
    """Running statistics of several momenta, kept beside one training."""

    norms: list[BatchNorm]
    states: dict[float, State] = field(init=False)

    def __post_init__(self) -> None:
        start = [each.clone() for each in self.batch()]
        self.states = {momentum: [each.clone() for each in start] for momentum in MOMENTA}
        for norm in self.norms:
            norm.momentum = 1.0  # then what stands in it is the last batch's own

    def batch(self) -> State:
        """Return the means and variances that stand in the norms."""
        kept = (each for norm in self.norms for each in (norm.running_mean, norm.running_var))
        return [each for each in kept if each is not None]

    def step(self, _: int) -> None:
        """Take the last step's statistics in."""
        for momentum, state in self.states.items():
            torch._foreach_lerp_(state, self.batch(), momentum)

    def put(self, state: State) -> None:
        """Judge by `state` next."""
        for target, value in zip(self.batch(), state, strict=True):
            target.copy_(value)


def rows_of(case: Case) -> Iterator[dict[str, Any]]:
    """Train one case; yield a row for each epoch: log-losses by statistics, and seconds."""
    live = case.live()
    running = Running([m for m in live.classifier.modules() if isinstance(m, BatchNorm)])
    held = np.concatenate([live.data.held["val"], live.data.held["blend"]])
    for epoch in range(1, live.config.epochs + 1):
        start = time.process_time()
        trained = train_one_epoch(live, epoch, SoloRanks(), 1, running.step)
        seconds = time.process_time() - start
        losses, cost = {}, {}
        for name, measure in _statistics(live, running, epoch):
            start = time.process_time()
            running.put(measure())
            cost[name] = time.process_time() - start
            losses[name] = _log_loss(live, held)
        yield {
            "case": case.key,
            "data": case.data.resolve().name,
            "batch": case.batch,
            "steps": case.steps,
            "seed": case.seed,
            "epoch": epoch,
            "epochs": live.config.epochs,
            "train_loss": trained.loss,
            "seconds": seconds,
            "cost": cost,
            "losses": losses,
        }
        live.rows.append({})


def _statistics(
    live: LiveTrial, running: Running, epoch: int
) -> Iterator[tuple[str, Callable[[], State]]]:
    for momentum, state in running.states.items():
        yield f"running {momentum}", partial(list, state)
    own = np.random.default_rng(live.config.seed).permutation(np.unique(live.data.train))
    for images in MEASURED:
        plan = eval_plan(live.data, own[:images], live.config, CPU)
        yield f"measured {images}", partial(measured, live, running, plan)
    for images in AUGMENTED:
        yield (
            f"augmented {images}",
            partial(measured, live, running, _augmented(live, own[:images], epoch)),
        )


def _augmented(live: LiveTrial, rows: Rows, epoch: int) -> TrainPlan:
    config, seeds = live.config, (live.config.seed, epoch, 1)
    size = min(64, len(rows))
    return TrainPlan(
        live.data.images, rows, size, config.image_size, config.augment, seeds, False, False
    )


@torch.inference_mode()
def measured(live: LiveTrial, running: Running, plan: EvalPlan | TrainPlan) -> State:
    """Return the mean over batches of what the weights as they are see in `plan`."""
    live.classifier.eval()
    for norm in running.norms:
        norm.train()
    total = [torch.zeros_like(each) for each in running.batch()]
    seen = 0
    for batch in Loader(plan, 1):
        if len(batch) == 1:
            continue
        images, _ = to_device(batch, CPU)
        live.classifier(live.numerics.normalise(images))
        seen += len(batch)
        torch._foreach_add_(total, running.batch(), alpha=len(batch))
    live.classifier.eval()
    torch._foreach_div_(total, seen)
    return total


def _log_loss(live: LiveTrial, rows: Rows) -> float:
    plan = eval_plan(live.data, rows, live.config, CPU)
    parts = predict_batches(live.classifier, plan, live.numerics, 1)
    losses = [F.cross_entropy(logits, labels, reduction="sum") for logits, labels in parts]
    return float(sum(losses)) / len(rows)


def lines_of(found: list[dict[str, Any]]) -> list[str]:
    """Return the tables: over all epochs, in the last, and what measuring costs."""
    cases = defaultdict(list)
    for row in found:
        cases[row["data"], row["batch"], row["steps"]].append(row)
    names = list(found[0]["losses"])
    lines = []
    for what, chosen in (("all epochs", _all), ("the last epoch", _last)):
        lines += [
            f"\nlog-loss less that by running statistics of momentum 0.1, {what}",
            _head(names),
        ]
        lines += [
            _line(key, [r for r in rows if chosen(r)], names) for key, rows in sorted(cases.items())
        ]
    lines += ["\ncost of measuring, in % of the epoch's training", _head(names)]
    for key, rows in sorted(cases.items()):
        seconds = sum(row["seconds"] for row in rows)
        costs = [100 * sum(row["cost"][name] for row in rows) / seconds for name in names]
        lines.append(_first(key) + " " * 9 + "".join(f"{cost:15.1f}" for cost in costs))
    return lines


def _all(row: dict[str, Any]) -> bool:
    return True


def _last(row: dict[str, Any]) -> bool:
    return bool(row["epoch"] == row["epochs"])


def _head(names: list[str]) -> str:
    return f"{'data':<12}{'batch':>6}{'steps':>6}{'0.1':>9}" + "".join(f"{n:>15}" for n in names)


def _first(key: tuple[str, int, int]) -> str:
    return f"{key[0]:<12}{key[1]:>6}{key[2]:>6}"


def _line(key: tuple[str, int, int], rows: list[dict[str, Any]], names: list[str]) -> str:
    """Return means over seeds of each seed's mean over epochs, and their standard errors."""
    seeds = defaultdict(list)
    for row in rows:
        seeds[row["seed"]].append([row["losses"][name] for name in names])
    by_seed = np.array([np.mean(each, axis=0) for each in seeds.values()])
    gains = by_seed - by_seed[:, :1]
    errors = gains.std(axis=0, ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else gains[0] * np.nan
    told = (
        f"{f'{gain:+.3f}+-{error:.3f}':>15}"
        for gain, error in zip(gains.mean(0), errors, strict=True)
    )
    return _first(key) + f"{by_seed[:, 0].mean():>9.3f}" + "".join(told)


if __name__ == "__main__":
    main()
