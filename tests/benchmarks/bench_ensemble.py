"""Times `build_ensemble` on a made-up study: python tests/benchmarks/bench_ensemble.py.

50 trials x 10,000 images x 200 classes by default, float16 logits on disk for val, blend and test;
against loading three models and predicting blend and test again, timed on `--predict` images of
the store and scaled up to all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from carray.config import InputSpec, build_config
from carray.ensemble import build_ensemble
from carray.records import HELD_SPLITS, StudyRecord, TrialRecord, TrialState
from carray.runs_folder import RunsFolder


def make(root: Path, trials: int, images: int, classes: int, splits: tuple[str, ...]) -> None:
    """Write the study."""
    rng = np.random.default_rng(0)
    folder = RunsFolder(root).study("bench")
    names = tuple(f"class {number}" for number in range(classes))
    StudyRecord(name="bench", manifest_hash="m", classes=names).write(folder.record_file)
    labels = {split: rng.integers(0, classes, images) for split in splits}
    folder.write_labels(labels)
    shared = rng.normal(size=(images, classes)).astype(np.float32)
    for number in range(trials):
        logits = {}
        for split, own in labels.items():
            values = shared + rng.standard_normal((images, classes), np.float32)
            values[np.arange(images), own] += 3 + 0.02 * number
            logits[split] = values
        place = folder.trial(number)
        place.write_logits(logits)
        params = {"optimizer.lr": 1e-3 / (number + 1)}
        row = {"val/log_loss": 2.0 - 0.01 * number, "val/top1": 0.5}
        place.write_record(
            TrialRecord(
                study="bench",
                number=number,
                state=TrialState.PRUNED if number % 3 == 0 else TrialState.COMPLETE,
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
    parser.add_argument("--predict", type=int, default=256)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=224)
    asked = parser.parse_args()
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
        model = load_classifier(config, classes, file).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
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
