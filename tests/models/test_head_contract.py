"""What every kind of head keeps: logits of each class, from a file as before, of one class more."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from carray.config import HeadConfig, HeadKind, InputSpec, TrialConfig, build_config
from carray.export.forms import quiet
from carray.export.graph import fix_counts
from carray.incremental.head import ClassMeans, expand_head, expanded_head_config, last_inputs
from carray.models.classifier import Classifier, load_classifier, save_classifier
from carray.training.features.fits import FITS, FeatureDataset

CLASSES = 5
SPEC = InputSpec(size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
FITTED = ("random_forest", "knn")  # a class more is a new fit; the others' last layers grow

pytestmark = pytest.mark.parametrize("kind", get_args(HeadKind))


def config_of(kind: str) -> TrialConfig:
    small = {"head.hidden": 16, "head.decoder_width": 32, "head.decoder_heads": 4}
    backbone = {"backbone": "test_efficientnet", "pretrained": False, "image_size": 64}
    return build_config({**backbone, **small, "head.kind": kind})


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))


def classifier_of(kind: str, num_classes: int = CLASSES) -> Classifier:
    """Return a classifier whose head is untrained, or fitted to made-up features."""
    torch.manual_seed(1)
    built = Classifier(config_of(kind), num_classes).eval()
    if kind in FITTED:
        width = built.features(images(2)).shape[1]
        built.head.fill(fitted(kind, num_classes, width))  # type: ignore[operator]
    return built


@cache
def fitted(kind: str, num_classes: int, width: int) -> dict[str, Tensor]:
    labels = np.arange(40) % num_classes
    noise = np.random.default_rng(0).normal(size=(40, width))
    features = (np.eye(num_classes, width)[labels] + 0.1 * noise).astype(np.float32)
    known = FeatureDataset(features, labels, features, labels, num_classes)
    tensors, _ = FITS[kind](known, 0)
    return tensors


@torch.no_grad()
def test_it_has_a_logit_of_every_class(kind: str) -> None:
    logits = classifier_of(kind)(images(3))
    assert logits.shape == (3, CLASSES)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@torch.no_grad()
def test_what_is_said_of_an_image_is_the_same_in_any_batch(kind: str) -> None:
    classifier, batch = classifier_of(kind), images(4)
    alone = torch.cat([classifier(image[None]) for image in batch])
    torch.testing.assert_close(classifier(batch), alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_it_comes_back_from_its_file_as_it_was(kind: str, tmp_path: Path) -> None:
    classifier, file = classifier_of(kind), tmp_path / "best.safetensors"
    save_classifier(classifier.state_dict(), file, SPEC)
    again = load_classifier(config_of(kind), CLASSES, file)
    assert torch.equal(again.eval()(images(3)), classifier(images(3)))


@torch.no_grad()
def test_it_grows_by_one_class(kind: str, tmp_path: Path) -> None:
    config, file = config_of(kind), tmp_path / "best.safetensors"
    old = classifier_of(kind)
    if kind in FITTED:
        save_classifier(classifier_of(kind, CLASSES + 1).state_dict(), file, SPEC)
    else:
        state = expand_head(old.state_dict(), CLASSES, seen_by(old))
        head: HeadConfig = expanded_head_config(config.head, state)
        config = config.model_copy(update={"head": head})
        save_classifier(state, file, SPEC)
    new = load_classifier(config, CLASSES + 1, file).eval()
    assert new(images(3)).shape == (3, CLASSES + 1)
    if kind not in FITTED:
        now = new(images(3))[:, :CLASSES]
        torch.testing.assert_close(now, old(images(3)), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_it_leaves_as_a_graph_for_any_number_of_images(kind: str) -> None:
    classifier = classifier_of(kind)
    features = classifier.features(images(5))
    expected = classifier.head(features)
    for module in classifier.modules():
        fix_counts(module)
    number = torch.export.Dim("n", min=1, max=64)
    with quiet():
        graph = torch.export.export(
            classifier.head, (features[:2],), dynamic_shapes=({0: number},)
        ).module()
    torch.testing.assert_close(graph(features), expected, rtol=1e-4, atol=1e-5)


def seen_by(classifier: Classifier) -> ClassMeans:
    means = ClassMeans()
    with last_inputs(classifier.head, CLASSES) as seen:
        classifier(images(6))
    means.add(seen[0], torch.arange(6) > 3)
    return means
