"""Times `build_ensemble` on a made-up study: python tests/benchmarks/bench_ensemble.py.

50 trials x 10,000 images x 200 classes by default, float16 logits on disk for val, blend and test;
against loading three models and predicting blend and test again, timed on `--predict` images of
the store and scaled up to all. With `--folds 5 --views 3` every trial stands on so many folds, and
the logits of three views of the members' are there as well.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from carray.config import InputSpec, build_config
from carray.data.manifest import COLUMNS, Manifest, PrepareSettings
from carray.data.pixels.augmentation import View
from carray.ensemble import Ensemble, build_ensemble
from carray.ensemble.tta_views import TtaPredictor
from carray.predictions.view_logits import store_view
from carray.predictions.views import NONE, Tta
from carray.progress import silent
from carray.records import HELD_SPLITS, StudyRecord, TrialFolder, TrialRecord, TrialState
from carray.runs_folder import RunsFolder


def make(
    root: Path, trials: int, images: int, classes: int, splits: tuple[str, ...], folds: int = 0
) -> None:
    """Write the study; with `folds` each trial stands on every one of them."""
    rng = np.random.default_rng(0)
    folder = RunsFolder(root).study("bench")
    names = tuple(f"class {number}" for number in range(classes))
    StudyRecord(name="bench", manifest_hash="m", classes=names).write(folder.record_file)
    labels = {split: rng.integers(0, classes, images) for split in splits}
    folder.write_labels(labels)
    shared = rng.normal(size=(images, classes)).astype(np.float32)
    for number in range(trials * max(1, folds)):
        logits = {}
        for split, own in labels.items():
            values = shared + rng.standard_normal((images, classes), np.float32)
            values[np.arange(images), own] += 3 + 0.02 * (number % trials)
            logits[split] = values
        place = folder.trial(number)
        place.write_logits(logits)
        params = {"optimizer.lr": 1e-3 / (number % trials + 1)}
        params |= {"fold": number // trials} if folds else {}
        row = {"val/log_loss": 2.0 - 0.01 * number, "val/top1": 0.5}
        place.write_record(
            TrialRecord(
                study="bench",
                number=number,
                kind="fold" if folds else "search",
                state=TrialState.COMPLETE if folds or number % 3 else TrialState.PRUNED,
                params=params,
                config=build_config(params),
                epochs=(row,) * 30,
                manifest_hash="m",
            )
        )


def main() -> None:
    """Make the study, time the call in this process and in a fresh one, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--views", type=int, default=3)
    parser.add_argument("--predict", type=int, default=256)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=224)
    asked = parser.parse_args()
    if asked.folds:
        time_folds(asked.trials, asked.images, asked.classes, asked.folds, asked.views)
        return
    print(f"{asked.trials} trials x {asked.images:,} images x {asked.classes} classes")
    print(f"{'rules judged on':<18}{'top':>4}{'seconds':>9}{'CPU s':>8}  chosen rule")
    for splits in (HELD_SPLITS, ("val", "test")):
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), asked.trials, asked.images, asked.classes, splits)
            for top in (3, min(10, asked.trials // 2)):
                before = time.process_time()
                made = build_ensemble(runs=folder, top=top, logits_only=True)
                spent = time.process_time() - before
                figures = f"{made.seconds:>9.2f}{spent:>8.2f}"
                print(f"{made.judged_on:<18}{top:>4}{figures}  {made.rule}")
            fresh = fresh_seconds(folder)
            print(f"{'a fresh process':<18}{3:>4}{fresh:>9.2f}")
    each = predicted_again(asked.backbone, asked.size, asked.classes, asked.predict)
    again = 3 * 2 * asked.images * each
    print(
        f"three {asked.backbone} at {asked.size} px predict blend and test again in {again:,.0f} s "
        f"({1000 * each:.1f} ms an image and model): x{again / fresh:,.0f}"
    )


def time_folds(trials: int, images: int, classes: int, folds: int, views: int) -> None:
    """Print how long an ensemble of the trials on folds takes, and its members' stored views."""
    print(f"{trials} trials x {folds} folds x {images:,} images x {classes} classes")
    columns = {"top": 4, "members": 9, "rules s": 9, "CPU s": 8, "views s": 9, "peak GiB": 10}
    print("".join(f"{name:>{width}}" for name, width in columns.items()) + "  chosen rule")
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), trials, images, classes, ("blend", "test"), folds)
        for top in (1, 3):
            before = time.process_time()
            made = build_ensemble(runs=folder, top=top, folds=True, logits_only=True)
            cpu = time.process_time() - before
            viewer = view_members(made, images, classes, views)
            start = time.perf_counter()
            for split in ("blend", "test"):
                viewer.log_ps(split, [NONE, Tta("views", "probability", seen(views))])
            spent = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(
                f"{top:>4}{len(made.chosen):>9}{made.seconds:>9.2f}{cpu:>8.2f}"
                f"{spent:>9.2f}{peak:>10.2f}"
                f"  {made.rule}"
            )


def seen(views: int) -> tuple[View, ...]:
    """Return so many views, the whole image the first."""
    return tuple(View(0.0, 0.0, 1.0 - 0.01 * number, 1.0) for number in range(views))


def view_members(made: Ensemble, images: int, classes: int, views: int) -> TtaPredictor:
    """Store what the members see in each view, and return who merges it."""
    rows = [
        {**dict.fromkeys(COLUMNS, 0), "split": split, "excluded": "", "path": f"{split}{number}"}
        for split in ("blend", "test")
        for number in range(images)
    ]
    names = tuple(f"class {number}" for number in range(classes))
    manifest = Manifest.make(Path(), names, pd.DataFrame(rows), PrepareSettings(images_folder="/"))
    trials = [TrialFolder(member.folder) for member in made.chosen]
    for trial in trials:
        for split in ("blend", "test"):
            for view in seen(views)[1:]:
                store_view(trial, view, split, trial.logits(split).astype(np.float32))
    average = replace(made.blend, members=tuple(range(len(trials))))
    records = tuple(trial.record() for trial in trials)
    return TtaPredictor(tuple(trials), records, average, manifest, silent)


def predicted_again(backbone: str, size: int, classes: int, images: int) -> float:
    """Return the seconds that one model takes an image, its loading included."""
    import torch

    from carray.models.classifier import build_classifier, load_classifier, save_classifier

    config = build_config({"backbone": backbone, "pretrained": False, "image_size": size})
    spec = InputSpec(size=size, mean=(0.5,) * 3, std=(0.5,) * 3)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        file = Path(folder) / "weights.safetensors"
        save_classifier(build_classifier(config, classes).classifier.state_dict(), file, spec)
        start = time.perf_counter()
        model = load_classifier(config, classes, file).to(memory_format=torch.channels_last)
        for _ in range(0, images, 32):
            batch = torch.randint(0, 256, (32, size, size, 3), dtype=torch.uint8)
            model(batch.permute(0, 3, 1, 2).float())
        return (time.perf_counter() - start) / images


def fresh_seconds(folder: str) -> float:
    """Return the wall time of the command line's call, imports included."""
    call = f"from carray.ensemble import build_ensemble as b; b(runs={folder!r}, logits_only=True)"
    check = "; import sys; assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", call + check], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
