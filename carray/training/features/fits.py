"""The fits behind classical heads: settings chosen on `val`, the result as plain tensors.

Only this module imports scikit-learn, and no trial process imports this module.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from carray.config import HeadConfig
from carray.models.fitted_heads import NeighbourHead
from carray.training.features.pooled import Features
from carray.typing import Labels

PROBE_STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # scikit-learn's C
NEIGHBOURS = (3, 10, 30)
SHARPNESS = (5.0, 20.0, 80.0)
NEVER = -20.0  # bias of a class without a training image

DEFAULTS = HeadConfig()
Fit = tuple[dict[str, Tensor], dict[str, Any]]  # the head's tensors, and what was chosen


@dataclass(frozen=True)
class FeatureDataset:
    """Features (N, D) and labels (N,) of train and val."""

    train: Features
    train_labels: Labels
    val: Features
    val_labels: Labels
    num_classes: int


def _fit_probe(known: FeatureDataset, seed: int, head: HeadConfig = DEFAULTS) -> Fit:
    """Multinomial logistic regression on standardised features; the scaling is folded in.

    A feature that hardly varies is not blown up to vary like others: a few images of `val`, in
    which it does, would be all that it says.
    """
    from sklearn.linear_model import LogisticRegression

    mean, spread = known.train.mean(0), known.train.std(0)
    std = np.maximum(spread, spread.mean()) + 1e-6
    scaled, best = (known.train - mean) / std, None
    for strength in (head.C,) if head.C else PROBE_STRENGTHS:
        probe = LogisticRegression(C=strength, max_iter=head.max_iter, tol=1e-3)
        with _without_warnings():
            probe.fit(scaled, known.train_labels)
        weight, bias = _full(probe, known.num_classes)
        weight = weight / std
        bias = bias - weight @ mean
        loss = _val_loss(torch.from_numpy(known.val @ weight.T + bias), known)
        if best is None or loss < best[0]:
            best = loss, strength, weight, bias
    assert best is not None
    _, strength, weight, bias = best
    tensors = {"1.weight": torch.tensor(weight), "1.bias": torch.tensor(bias)}
    return {name: value.float() for name, value in tensors.items()}, {"strength": strength}


def _full(probe: Any, num_classes: int) -> tuple[Any, Any]:
    """Return weight (C, D) and bias (C,) over all classes; one without images is never said."""
    coef, intercept = probe.coef_, probe.intercept_
    if len(probe.classes_) == 2:  # scikit-learn keeps the odds of the second alone
        coef, intercept = (np.concatenate([-one, one]) / 2 for one in (coef, intercept))
    weight = np.zeros((num_classes, coef.shape[1]))
    bias = np.full(num_classes, NEVER)
    weight[probe.classes_], bias[probe.classes_] = coef, intercept
    return weight, bias


def _without_warnings() -> Any:
    """Don't warn of a probe that is still improving: val judges it as it is."""
    from sklearn.exceptions import ConvergenceWarning

    return warnings.catch_warnings(action="ignore", category=ConvergenceWarning)


def _fit_forest(known: FeatureDataset, seed: int, head: HeadConfig = DEFAULTS) -> Fit:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(
        head.n_estimators,
        max_depth=head.max_depth or None,
        min_samples_leaf=head.min_samples_leaf,
        max_features=None if head.max_features == "all" else head.max_features,
        random_state=seed,
        n_jobs=-1,
    )
    forest.fit(known.train, known.train_labels)
    trees = [estimator.tree_ for estimator in forest.estimators_]
    nodes = max(tree.node_count for tree in trees)
    tensors = {
        name: torch.zeros(len(trees), nodes, dtype=torch.int32)
        for name in ("feature", "left", "right", "vote")
    }
    tensors["threshold"] = torch.zeros(len(trees), nodes)
    for number, tree in enumerate(trees):
        _plant(tensors, number, tree, forest.classes_)
    depth = max(tree.max_depth for tree in trees)
    return {**tensors, "depth": torch.tensor(depth, dtype=torch.int32)}, {"trees": len(trees)}


def _plant(tensors: dict[str, Tensor], number: int, tree: Any, classes: Any) -> None:
    """Write one tree's nodes; a leaf leads to itself."""
    count, own = tree.node_count, np.arange(tree.node_count)
    leaf = tree.children_left < 0
    columns = {
        "feature": np.where(leaf, 0, tree.feature),
        "left": np.where(leaf, own, tree.children_left),
        "right": np.where(leaf, own, tree.children_right),
        "vote": classes[tree.value[:, 0].argmax(1)],
        "threshold": np.where(leaf, 0.0, tree.threshold),
    }
    for name, column in columns.items():
        tensors[name][number, :count] = torch.from_numpy(column).to(tensors[name].dtype)


def _fit_neighbours(known: FeatureDataset, seed: int, head: HeadConfig = DEFAULTS) -> Fit:
    bank = F.normalize(torch.from_numpy(known.train), dim=1).half()
    labels = torch.from_numpy(known.train_labels).int()
    best: tuple[float, dict[str, Tensor], dict[str, Any]] | None = None
    for count in (head.n_neighbors,) if head.n_neighbors else NEIGHBOURS:
        for sharpness in SHARPNESS if head.sharpness is None else (head.sharpness,):
            tensors = {
                "bank": bank,
                "bank_labels": labels,
                "neighbours": torch.tensor(count, dtype=torch.int32),
                "sharpness": torch.tensor(sharpness),
            }
            voting = NeighbourHead(known.num_classes, bank.shape[1])
            voting.fill(tensors)
            loss = _val_loss(voting(torch.from_numpy(known.val)), known)
            if best is None or loss < best[0]:
                best = loss, tensors, {"neighbours": count, "sharpness": sharpness}
    assert best is not None
    return best[1], best[2]


def _val_loss(logits: Tensor, known: FeatureDataset) -> float:
    return float(F.cross_entropy(logits.float(), torch.from_numpy(known.val_labels)))


FITS: dict[str, Callable[..., Fit]] = {
    "linear_probe": _fit_probe,
    "random_forest": _fit_forest,
    "knn": _fit_neighbours,
}
"""By kind of head: a function of the data, the seed and the head's settings."""
