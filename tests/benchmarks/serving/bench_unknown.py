"""Which score tells images of unknown classes best, by leaving classes out.

    python tests/benchmarks/serving/bench_unknown.py IMAGES... [--weights DIR] [--rounds 3]

Each of IMAGES is a folder of splits of classes (train/CLASS/...). In each round four other classes
are left out, a network is trained on the rest, and each score says how unlike those classes an
image is: of the test images of the known ones, and of all images of those left out. What a score
needs it takes from the training images; what puts two on one scale, from blend. AUROC is the chance
that an unknown image scores above a known one.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from carray.data.manifest import Manifest
from carray.data.preparation.prepare import prepare
from carray.inference.package import write_package
from carray.inference.predictor import BATCH_IMAGES, Member, load_model, open_stores, squares_of
from carray.predictions.logits import energy_of, log_softmax
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.training.train import train
from carray.typing import AnyFloats, Labels

NEIGHBOURS = 5
RECIPE = {"device_batch_size": 32, "optimizer.lr": 2e-3}
Scores = dict[str, AnyFloats]


@dataclass(frozen=True)
class Seen:
    """What a network says of some images."""

    features: AnyFloats
    logits: AnyFloats


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    if asked.weights:
        os.environ["CARRAY_WEIGHTS"] = str(asked.weights.resolve())
    recipe = {**RECIPE, "backbone": asked.backbone, "pretrained": bool(asked.weights)}
    recipe |= {"image_size": asked.size, "epochs": asked.epochs}
    for source in asked.images:
        found: dict[str, list[float]] = defaultdict(list)
        for number in range(asked.rounds):
            with tempfile.TemporaryDirectory() as folder:
                aurocs = leave_out(source, Path(folder), number, asked.out, recipe)
            for name, auroc in aurocs.items():
                found[name].append(auroc)
        print(source.name)
        for name, own in found.items():
            print(f"  {name:<44}{statistics.mean(own):.3f}  {' '.join(f'{x:.3f}' for x in own)}")


def leave_out(
    source: Path, root: Path, number: int, count: int, recipe: Mapping[str, Any]
) -> dict[str, float]:
    """Train without `count` classes; return each score's AUROC."""
    classes = sorted(folder.name for folder in (source / "train").iterdir())
    random.Random(7).shuffle(classes)
    away = classes[number * count :][:count]
    for split in (folder for folder in source.iterdir() if folder.is_dir()):
        for folder in split.iterdir():
            kept = root / ("away" if folder.name in away else "known") / split.name
            kept.mkdir(parents=True, exist_ok=True)
            (kept / folder.name).symlink_to(folder.resolve())
    prepare(root / "known", root / "data", blend=0.15)
    train(root / "data", recipe, runs=root / "runs")
    study = RunsFolder(root / "runs").study("single")
    write_package(root / "model", study.record(), [study.trial(0)])
    (member,) = load_model(root / "model", "cpu").members
    manifest = Manifest.load(root / "data")
    pixels = open_stores(manifest, [member], silent)[member.geometry]
    seen = {
        split: see(member, pixels[np.sort(manifest.rows(split))])
        for split in ("train", "blend", "test")
    }
    files = [file for folder in (root / "away").glob("*/*") for file in sorted(folder.iterdir())]
    geometry = member.geometry
    far = [squares_of(file.read_bytes(), None, 0.0, [geometry])[geometry] for file in files]
    seen["away"] = see(member, np.stack(far))
    labels = manifest.labels[np.sort(manifest.rows("train"))]
    scores = {
        split: scores_of(seen[split], seen["train"], labels) for split in ("blend", "test", "away")
    }
    for names in (("energy", "nearest"), ("energy", "nearest", "relative Mahalanobis")):
        for own in (scores["test"], scores["away"], scores["blend"]):
            own[" + ".join(names)] = sum_of(names, own, scores["blend"])
    is_unknown = np.repeat([0, 1], [len(seen["test"].logits), len(files)])
    return {
        name: float(roc_auc_score(is_unknown, np.concatenate([near, scores["away"][name]])))
        for name, near in scores["test"].items()
    }


def see(member: Member, squares: AnyFloats) -> Seen:
    parts = [
        np.asarray(squares[start : start + BATCH_IMAGES])
        for start in range(0, len(squares), BATCH_IMAGES)
    ]
    features = np.concatenate([member.features(part) for part in parts])
    logits = np.concatenate([member.logits(part) for part in parts])
    return Seen(features.astype(np.float64), logits.astype(np.float64))


def scores_of(seen: Seen, train: Seen, labels: Labels) -> Scores:
    """Return what is larger for images less like the training images, by name."""
    mean = train.features.mean(axis=0)
    means = np.stack([train.features[labels == own].mean(axis=0) for own in np.unique(labels)])
    within = distance(train.features - means[labels])
    at_all = distance(train.features - mean)
    mahalanobis = np.min([within(seen.features - own) for own in means], axis=0)
    return {
        "energy": energy_of(seen.logits),
        "largest logit": -seen.logits.max(axis=1),
        "largest probability": -log_softmax(seen.logits.astype(np.float32)).max(axis=1),
        "nearest": nearest(seen.features, train.features),
        "nearest, centred": nearest(seen.features - mean, train.features - mean),
        "Mahalanobis": mahalanobis,
        "relative Mahalanobis": mahalanobis - at_all(seen.features - mean),
    }


def nearest(features: AnyFloats, train: AnyFloats) -> AnyFloats:
    """Return minus the cosine to the fifth nearest training image (Sun et al., ICML 2022)."""
    ours, theirs = (each / np.linalg.norm(each, axis=1)[:, None] for each in (features, train))
    return -np.sort(ours @ theirs.T, axis=1)[:, -NEIGHBOURS]


def distance(apart: AnyFloats) -> Callable[[AnyFloats], AnyFloats]:
    """Return the squared Mahalanobis distance under a shrunk covariance (Ren et al., 2021)."""
    precision = np.linalg.inv(ledoit_wolf(apart)[0])
    return lambda x: np.asarray(((x @ precision) * x).sum(axis=1))


def sum_of(names: Sequence[str], own: Scores, blend: Scores) -> AnyFloats:
    """Return the sum of scores, each from blend's median in units of its spread."""
    total = np.zeros(len(own[names[0]]))
    for name in names:
        low, middle, high = np.percentile(blend[name], [16, 50, 84])
        total += (own[name] - middle) / (high - low)
    return total


if __name__ == "__main__":
    main()
