"""Is a training as good as a plain loop's: bench_parity.py DATA --weights DIR [--out FILE].

One backbone, recipe, batch and number of epochs; four ways to train them, each a step further:

- `timm`: timm's model, loaders, optimizer, schedule and loss, in the order of its `train.py`, with
  the same class of augmentation (random resized crop, flip, colour, erasing) on the JPEGs;
- `+ small head`: its new last layer starts as ours does, where timm's starts for as many classes
  as there are on ImageNet;
- `+ our input`: on the batches that carray's loader gives;
- `carray`: carray's epochs.

Each is judged after its last epoch on all held-out images: by timm's resize and centre crop, and on
the whole image squashed to a square as carray does; by running batch norm statistics, and by those
that carray measures on training images. So a table's rows tell what a lead comes from. Nothing is
chosen on what is judged. --out keeps what was measured, line by line, and is gone on with.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from bench_trial import files_of
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.nn import functional as F

from carray.config import TrialConfig
from carray.data.manifest import Manifest
from carray.data.pixels.augment_ranges import ranges_for
from carray.data.pixels.loader import EvalPlan, Loader, TrainPlan, to_device, train_rows
from carray.files import add_json_line, read_json_lines
from carray.models.freezing import BatchNorm
from carray.models.recipes import complete_config
from carray.training.batch_norm import MEASURED_LEAST
from carray.training.dataset import open_data
from carray.training.evaluation import eval_plan
from carray.training.loop import train_one_epoch
from carray.training.ranks import SoloRanks
from carray.training.trial_state import LiveTrial, build_live, default_compute

CPU = torch.device("cpu")
HELD = "val", "blend", "test"
Batches = Iterable[tuple[Tensor, Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="a prepared data set")
    parser.add_argument("--weights", type=Path, help="none: from scratch")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="JSON lines")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = read_json_lines(asked.out) if asked.out else []
    case = partial(
        Case,
        asked.data,
        asked.weights,
        asked.backbone,
        asked.size,
        asked.batch,
        asked.epochs,
    )
    for seed, way in product(asked.seeds, WAYS):
        one = case(seed)
        if (one.key, way, seed) not in {(row["case"], row["way"], row["seed"]) for row in found}:
            rows = [{"case": one.key, "way": way, "seed": seed, **row} for row in rows_of(one, way)]
            found += rows
            for row in rows if asked.out else ():
                add_json_line(asked.out, row)
    print("\n".join(lines_of(found)))


@dataclass(frozen=True)
class Case:
    """What is trained in each way."""

    data: Path
    weights: Path | None
    backbone: str
    size: int
    batch: int
    epochs: int
    seed: int

    @property
    def key(self) -> str:
        """Name the case, all seeds of it alike."""
        start = "" if self.weights else " from scratch"
        name = f"{self.data.resolve().name} {self.backbone}@{self.size}{start}"
        return f"{name}, batch {self.batch}, {self.epochs} epochs"

    def live(self) -> LiveTrial:
        """Build carray's trial of the known recipe."""
        params = {
            "backbone": self.backbone,
            "pretrained": self.weights is not None,
            "image_size": self.size,
            "device_batch_size": self.batch,
            "epochs": self.epochs,
            "seed": self.seed,
        }
        images = len(Manifest.load(self.data).rows("train"))
        config = complete_config(params, images)
        choose = partial(default_compute, config, device=CPU)
        data = open_data(str(self.data), config)
        return build_live(self.key, config, data, CPU, choose, self.weights)


def rows_of(case: Case, way: str) -> Iterator[dict[str, Any]]:
    """Train one case in one way; yield a row for each way to judge it."""
    live = case.live()
    torch.manual_seed(case.seed)
    model = WAYS[way](case, live)
    for statistics in ("running", "measured"):
        if statistics == "measured":
            measure_batch_norms(model, live)
        for view, batches in HELD_VIEWS.items():
            yield {"statistics": statistics, "view": view, **judge(model, batches(case, live))}


def train_with_carray(case: Case, live: LiveTrial) -> nn.Module:
    """Run carray's epochs."""
    for epoch in range(1, case.epochs + 1):
        train_one_epoch(live, epoch, SoloRanks(), 1, lambda _: None)
        live.rows.append({})
    return live.classifier


def train_with_timm(case: Case, live: LiveTrial) -> nn.Module:
    """Run timm's loop on the JPEGs."""
    return loop_on_files(case, live, timm_model(case, live))


def train_with_small_head(case: Case, live: LiveTrial) -> nn.Module:
    """Run timm's loop on the JPEGs; the head starts as ours."""
    return loop_on_files(case, live, with_small_head(timm_model(case, live)))


def train_on_our_input(case: Case, live: LiveTrial) -> nn.Module:
    """Run timm's loop on the batches that carray trains on; the head starts as ours."""
    model = with_small_head(timm_model(case, live))
    rows, size = train_rows(live.data.train, case.seed, 1, 0, 1, case.batch)
    return plain_loop(case, live, model, partial(our_batches, live), len(rows) // size)


WAYS: dict[str, Callable[[Case, LiveTrial], nn.Module]] = {
    "timm": train_with_timm,
    "+ small head": train_with_small_head,
    "+ our input": train_on_our_input,
    "carray": train_with_carray,
}


def timm_model(case: Case, live: LiveTrial) -> nn.Module:
    """Build timm's own."""
    local: dict[str, Any] = {}
    if case.weights:
        file = str(case.weights / f"{case.backbone}.safetensors")
        local = {"pretrained": True, "pretrained_cfg_overlay": {"file": file}}
    classes = len(live.data.classes)
    model: nn.Module = timm.create_model(case.backbone, num_classes=classes, **local)
    return model.to(memory_format=torch.channels_last)


def with_small_head(model: nn.Module) -> nn.Module:
    """Start its last layer near zero."""
    head = model.get_classifier()  # type: ignore[operator]
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return model


def loop_on_files(case: Case, live: LiveTrial, model: nn.Module) -> nn.Module:
    """Train on the JPEGs by timm's loader."""
    ranges = ranges_for(live.config.augment.strength)
    loader = create_loader(
        files_of(Manifest.load(case.data), "train"),
        input_size=(3, case.size, case.size),
        batch_size=case.batch,
        is_training=True,
        use_prefetcher=False,
        num_workers=0,
        scale=(ranges.crop_area_min, 1.0),
        ratio=(1 / ranges.crop_aspect_max, ranges.crop_aspect_max),
        hflip=0.5 if live.config.augment.flip else 0.0,
        color_jitter=ranges.colour,
        re_prob=ranges.erase_share,
        interpolation="bilinear",
    )
    return plain_loop(case, live, model, lambda _: loader, len(loader))


def plain_loop(
    case: Case, live: LiveTrial, model: nn.Module, batches: Callable[[int], Batches], steps: int
) -> nn.Module:
    """Train timm's model by the same recipe: AdamW, a cosine with every update, smoothing."""
    config: TrialConfig = live.config
    optimizer = create_optimizer_v2(
        model, opt="adamw", lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay
    )
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=case.epochs,
        warmup_epochs=config.schedule.warmup_epochs,
        warmup_lr=config.optimizer.lr / 100,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    updates = 0
    for epoch in range(1, case.epochs + 1):
        model.train()
        for images, labels in batches(epoch):
            scheduler.step_update(num_updates=updates)
            logits = model(images.contiguous(memory_format=torch.channels_last))
            smoothing = config.loss.label_smoothing
            loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            updates += 1
    return model


def our_batches(live: LiveTrial, epoch: int) -> Batches:
    """Yield the batches of one of carray's epochs, normalised."""
    config = live.config
    rows, size = train_rows(live.data.train, config.seed, epoch, 0, 1, config.device_batch_size)
    seeds = config.seed, epoch, 0
    plan = TrainPlan(
        live.data.images, rows, size, config.image_size, config.augment, seeds, False, False
    )
    return normalised(live, plan)


def normalised(live: LiveTrial, plan: TrainPlan | EvalPlan) -> Batches:
    """Yield normalised images and labels of a plan."""
    for batch in Loader(plan, 1):
        images, labels = to_device(batch, CPU)
        yield live.numerics.normalise(images), labels


@torch.inference_mode()
def measure_batch_norms(model: nn.Module, live: LiveTrial) -> None:
    """Measure statistics on as many training images as carray does, as they are evaluated."""
    drawn = np.random.default_rng(live.config.seed).permutation(live.data.train)
    norms = [each for each in model.modules() if isinstance(each, BatchNorm)]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches
        norm.train()
    plan = eval_plan(live.data, drawn[:MEASURED_LEAST], live.config, CPU)
    for images, _ in normalised(live, plan):
        model(images)
    model.eval()


def our_view(case: Case, live: LiveTrial) -> Batches:
    """Yield the held-out images whole, squashed to a square."""
    rows = np.concatenate([live.data.held[split] for split in HELD if split in live.data.held])
    return normalised(live, eval_plan(live.data, rows, live.config, CPU))


def timm_view(case: Case, live: LiveTrial) -> Batches:
    """Yield the held-out images by timm's resize and centre crop."""
    manifest = Manifest.load(case.data)
    for split in HELD:
        if split in live.data.held:
            yield from create_loader(
                files_of(manifest, split),
                input_size=(3, case.size, case.size),
                batch_size=64,
                is_training=False,
                use_prefetcher=False,
                num_workers=0,
                interpolation="bilinear",
            )


HELD_VIEWS = {"centre crop": timm_view, "squashed": our_view}


@torch.inference_mode()
def judge(model: nn.Module, batches: Batches) -> dict[str, float]:
    """Return the log-loss and top-1 over `batches`."""
    model.eval()
    loss, right, images = 0.0, 0, 0
    for inputs, labels in batches:
        logits = model(inputs.contiguous(memory_format=torch.channels_last))
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(1) == labels).sum())
        images += len(labels)
    return {"log_loss": loss / images, "top1": right / images}


def lines_of(found: list[dict[str, Any]]) -> list[str]:
    """Return the tables: one a case, a line for each way to train, a column for each to judge."""
    cases: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in found:
        cases[row["case"]].append(row)
    lines = []
    for case, rows in cases.items():
        columns = list(dict.fromkeys((row["view"], row["statistics"]) for row in rows))
        lines += ["", f"{case}: log-loss on held-out images (top-1), +- standard error over seeds"]
        heads = [f"{view}, {statistics}" for view, statistics in columns]
        lines.append(f"{'':<18}" + "".join(f"{head:>26}" for head in heads))
        for way in dict.fromkeys(row["way"] for row in rows):
            cells = [_cell(rows, way, *column) for column in columns]
            lines.append(f"{way:<18}" + "".join(f"{cell:>26}" for cell in cells))
    return lines


def _cell(rows: list[dict[str, Any]], way: str, view: str, statistics: str) -> str:
    key = way, view, statistics
    chosen = [row for row in rows if (row["way"], row["view"], row["statistics"]) == key]
    losses, top1 = ([row[name] for row in chosen] for name in ("log_loss", "top1"))
    error = np.std(losses, ddof=1) / len(losses) ** 0.5 if len(losses) > 1 else np.nan
    return f"{np.mean(losses):.3f} +- {error:.3f} ({np.mean(top1):.3f})"


if __name__ == "__main__":
    main()
