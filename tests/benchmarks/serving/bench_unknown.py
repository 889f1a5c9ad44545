"""Which score tells images of unknown classes best, by leaving classes out.

    python tests/benchmarks/serving/bench_unknown.py IMAGES... [--weights DIR] [--rounds 3]

Each of IMAGES is a folder of splits of classes (train/CLASS/...). In each round four other classes
are left out, `--members` networks are trained on the rest, and each score says how unlike those
classes an image is: of the test images of the known ones, and of all images of those left out.
Of several networks a score is the members' mean, and there are scores of how they disagree. What a
score needs it takes from the training images; a temperature, and what puts two on one scale, from
blend. AUROC is the chance that an unknown image scores above a known one.
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
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from carray.data.manifest import Manifest
from carray.data.preparation.prepare import prepare
from carray.inference.package import write_package
from carray.inference.predictor import BATCH_IMAGES, Square, load_model, open_stores, squares_of
from carray.predictions.averaging import TINY
from carray.predictions.logits import energy_of, log_softmax
from carray.predictions.scores import cross_fit_temperature, make_folds
from carray.progress import silent
from carray.runs_folder import RunsFolder
from carray.training.train import train
from carray.typing import AnyFloats, Float32s, Labels

NEIGHBOURS = 5
RECIPE = {"device_batch_size": 32, "optimizer.lr": 2e-3}
SUMS = (
    ("energy", "residual"),
    ("energy", "nearest"),
    ("energy", "nearest", "relative Mahalanobis"),
)
Scores = dict[str, AnyFloats]


@dataclass(frozen=True)
class Seen:
    """What a network says of some images."""

    features: AnyFloats
    logits: AnyFloats
    clipped: AnyFloats
    """Logits of features cut off at what a tenth of the training images' exceed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--members", type=int, default=1, help="networks of an ensemble")
    asked = parser.parse_args()
    if asked.weights:
        os.environ["CARRAY_WEIGHTS"] = str(asked.weights.resolve())
    recipe = {**RECIPE, "backbone": asked.backbone, "pretrained": bool(asked.weights)}
    recipe |= {"image_size": asked.size, "epochs": asked.epochs}
    for source in asked.images:
        found: dict[str, list[float]] = defaultdict(list)
        for number in range(asked.rounds):
            with tempfile.TemporaryDirectory() as folder:
                aurocs = leave_out(source, Path(folder), number, asked, recipe)
            for name, auroc in aurocs.items():
                found[name].append(auroc)
        print(source.name)
        for name, own in found.items():
            print(f"  {name:<44}{statistics.mean(own):.3f}  {' '.join(f'{x:.3f}' for x in own)}")


def leave_out(
    source: Path, root: Path, number: int, asked: argparse.Namespace, recipe: Mapping[str, Any]
) -> dict[str, float]:
    """Train without `asked.out` classes; return each score's AUROC."""
    classes = sorted(folder.name for folder in (source / "train").iterdir())
    random.Random(7).shuffle(classes)
    away = classes[number * asked.out :][: asked.out]
    for split in (folder for folder in source.iterdir() if folder.is_dir()):
        for folder in split.iterdir():
            kept = root / ("away" if folder.name in away else "known") / split.name
            kept.mkdir(parents=True, exist_ok=True)
            (kept / folder.name).symlink_to(folder.resolve())
    prepare(root / "known", root / "data", blend_size=0.15)
    manifest = Manifest.load(root / "data")
    labels = {split: manifest.labels[np.sort(manifest.rows(split))] for split in ("train", "blend")}
    files = [file for folder in (root / "away").glob("*/*") for file in sorted(folder.iterdir())]
    members = []
    for seed in range(asked.members):
        done = train(root / "data", {**recipe, "seed": seed}, runs=root / "runs")
        members.append(seen_by(root, done.number, manifest, files))
    scores = {split: all_scores(members, split, labels) for split in ("blend", "test", "away")}
    for own in (scores["test"], scores["away"], scores["blend"]):
        for names in SUMS:
            own[" + ".join(names)] = sum_of(names, own, scores["blend"])
    is_unknown = np.repeat([0, 1], [len(scores["test"]["energy"]), len(files)])
    return {
        name: float(roc_auc_score(is_unknown, np.concatenate([near, scores["away"][name]])))
        for name, near in scores["test"].items()
    }


def seen_by(root: Path, number: int, manifest: Manifest, files: Sequence[Path]) -> dict[str, Seen]:
    """Return what a trial's network says of each split, and of `files` as `away`."""
    study = RunsFolder(root / "runs").study("single")
    package = root / f"model{number}"
    write_package(package, study.record(), [study.trial(number)])
    (member,) = load_model(package, "cpu").members
    geometry = member.geometry
    pixels = open_stores(manifest, [member], silent)[geometry]
    squares = {split: pixels[np.sort(manifest.rows(split))] for split in ("train", "blend", "test")}
    far = [squares_of(file.read_bytes(), None, 0.0, [geometry])[geometry] for file in files]
    squares["away"] = np.stack(far)
    features = {split: in_parts(member.features, own) for split, own in squares.items()}
    limit = float(np.percentile(features["train"], 90))
    head = member.classifier.head

    @torch.inference_mode()
    def clipped(own: AnyFloats) -> AnyFloats:
        return np.asarray(head(torch.from_numpy(own).clamp(max=limit)), np.float64)

    return {
        split: Seen(own.astype(np.float64), in_parts(member.logits, squares[split]), clipped(own))
        for split, own in features.items()
    }


def in_parts(ask: Callable[[Square], Float32s], squares: Square) -> AnyFloats:
    starts = range(0, len(squares), BATCH_IMAGES)
    return np.concatenate([ask(np.asarray(squares[at : at + BATCH_IMAGES])) for at in starts])


def all_scores(
    members: Sequence[Mapping[str, Seen]], split: str, labels: Mapping[str, Labels]
) -> Scores:
    """Return the members' mean scores of a split's images, and how they disagree."""
    each = [scores_of(own[split], own["train"], labels["train"]) for own in members]
    scores = {name: np.mean([one[name] for one in each], axis=0) for name in each[0]}
    logits = {part: np.mean([own[part].logits for own in members], 0) for part in (split, "blend")}
    log_p = log_softmax(logits["blend"].astype(np.float32))
    fit = cross_fit_temperature(log_p, labels["blend"], make_folds(labels["blend"]))
    scores["energy at the temperature"] = energy_of(logits[split] / fit.temperature)
    if len(members) > 1:
        p_MNC = np.exp([log_softmax(own[split].logits.astype(np.float32)) for own in members])
        of_mean, mean_of = entropy(p_MNC.mean(axis=0)), entropy(p_MNC).mean(axis=0)
        scores |= {
            "energy of the mean logits": energy_of(logits[split]),
            "largest of the mean logits": -logits[split].max(axis=1),
            "largest of the mean probabilities": -p_MNC.mean(axis=0).max(axis=1),
            "entropy of the mean probabilities": of_mean,
            "disagreement (mutual information)": of_mean - mean_of,
        }
    return scores


def entropy(p_C: AnyFloats) -> AnyFloats:
    return np.asarray(-(p_C * np.log(np.maximum(p_C, TINY))).sum(axis=-1))


def scores_of(seen: Seen, train: Seen, labels: Labels) -> Scores:
    """Return what is larger for images less like the training images, by name."""
    mean = train.features.mean(axis=0)
    means = np.stack([train.features[labels == own].mean(axis=0) for own in np.unique(labels)])
    within = distance(train.features - means[labels])
    at_all = distance(train.features - mean)
    mahalanobis = np.min([within(seen.features - own) for own in means], axis=0)
    return {
        "energy": energy_of(seen.logits),
        "energy of clipped features": energy_of(seen.clipped),
        "largest logit": -seen.logits.max(axis=1),
        "largest probability": -log_softmax(seen.logits.astype(np.float32)).max(axis=1),
        "nearest": nearest(seen.features, train.features),
        "nearest, centred": nearest(seen.features - mean, train.features - mean),
        "residual": residual(seen.features - mean, train.features - mean),
        "Mahalanobis": mahalanobis,
        "relative Mahalanobis": mahalanobis - at_all(seen.features - mean),
    }


def residual(features: AnyFloats, train: AnyFloats) -> AnyFloats:
    """Return what lies off the training images' main directions, of all that there is.

    Added to the energy it is ViM (Wang et al., CVPR 2022).
    """
    directions = np.linalg.svd(train, full_matrices=False)[2][: len(train) // 4]
    along = np.linalg.norm(features @ directions.T, axis=1)
    whole = np.linalg.norm(features, axis=1)
    return np.asarray(np.sqrt(np.maximum(whole**2 - along**2, 0)))


def nearest(features: AnyFloats, train: AnyFloats) -> AnyFloats:
    """Return minus the cosine to the fifth nearest training image (Sun et al., ICML 2022)."""
    norms = [np.maximum(np.linalg.norm(each, axis=1), TINY) for each in (features, train)]
    ours, theirs = features / norms[0][:, None], train / norms[1][:, None]
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
