"""What continuing a training costs against training anew: bench_continue.py DATA --weights DIR.

The known recipe of a backbone is trained for some epochs, to the end of its cosine. Then its last
checkpoint is continued, with a cosine that begins again from a share of the peak, and the same
recipe is trained anew for as many epochs in all. Each row tells the log-loss of the kept epoch on
`val` and on `test`, a mean over seeds, and the difference to training anew (+- its standard error).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from carray.config import TrialConfig
from carray.data.manifest import Manifest
from carray.models.recipes import complete_config
from carray.predictions.logits import true_log_probability
from carray.records import TrialFolder
from carray.training import schedule
from carray.training.epoch_order import EpochOrder
from carray.training.ranks import SoloRanks
from carray.training.runner import TrialRunner

SPLITS = ("val", "test")
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="a prepared data set")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--backbone", default="mobilenetv2_035")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, nargs=2, default=[20, 40], help="before and in all")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.25, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, default=2)
    asked = parser.parse_args()
    losses = defaultdict(list)
    seconds = defaultdict(list)
    for seed in range(asked.seeds):
        for name, (loss, spent) in measured(asked, seed).items():
            losses[name].append(loss)
            seconds[name].append(spent)
    print("training | val, test | less anew: val, test | CPU seconds of its own")
    for name, rows in losses.items():
        print(" | ".join((name, *texts(rows, losses["anew"]), f"{np.mean(seconds[name]):.0f}")))


def texts(rows: list[list[float]], anew: list[list[float]]) -> tuple[str, str]:
    """Return the means of rows of (val, test), and their differences to training anew."""
    values, less = np.array(rows), np.array(rows) - np.array(anew)
    errors = less.std(axis=0, ddof=1) / np.sqrt(len(less)) if len(less) > 1 else less * np.nan
    pairs = zip(less.mean(axis=0), errors, strict=True)
    return (
        ", ".join(f"{mean:.3f}" for mean in values.mean(axis=0)),
        ", ".join(f"{mean:+.3f} +- {error:.3f}" for mean, error in pairs),
    )


def measured(asked: argparse.Namespace, seed: int) -> dict[str, tuple[list[float], float]]:
    """Return {training: (log-losses on `SPLITS`, CPU seconds)} of one seed."""
    before, whole = asked.epochs
    manifest = Manifest.load(asked.data)
    recipe = {"backbone": asked.backbone, "image_size": asked.size, "seed": seed, "epochs": before}
    config = complete_config(recipe, len(manifest.rows("train")))
    with tempfile.TemporaryDirectory() as aside:

        def run(name: str, config: TrialConfig, first: int = 1) -> tuple[list[float], float]:
            began = time.process_time()
            continues = str(Path(aside) / f"{before} epochs") if first > 1 else None
            folder = TrialFolder(Path(aside) / name)
            order = EpochOrder(
                trial=name,
                folder=str(folder.path),
                data=str(asked.data.resolve()),
                config=config,
                epoch=1,
                weights=str(asked.weights.resolve()),
                continues=continues,
                keeps_checkpoint=True,
            )
            runner = TrialRunner(SoloRanks(), CPU, 1)
            for epoch in range(first, config.epochs + 1):
                runner.run_epoch(order.model_copy(update={"epoch": epoch}))
            runner.finish(order)
            return held_losses(folder, manifest), time.process_time() - began

        found = {f"{before} epochs": run(f"{before} epochs", config)}
        for share in asked.shares:
            schedule.RESTART = share
            name = f"continued from {share:g} of the peak"
            found[name] = run(name, config.continued(whole), before + 1)
        anew = config.model_copy(update={"epochs": whole})
        return found | {"anew": run("anew", anew)}


def held_losses(folder: TrialFolder, manifest: Manifest) -> list[float]:
    """Return the log-loss of a trial's kept epoch on each of `SPLITS`."""
    return [
        -float(true_log_probability(folder.logits(s), manifest.labels[manifest.rows(s)]).mean())
        for s in SPLITS
    ]


if __name__ == "__main__":
    main()
