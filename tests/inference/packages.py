"""Trials with real, tiny classifiers, and pictures to predict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from carray.config import build_config
from carray.models.backbones import input_spec
from carray.models.classifier import build_classifier, save_classifier
from carray.records import StudyFolder, TrialState
from tests.ensemble.studies import StudySpec, Trial, make_study

TINY = ({"backbone": "test_resnet", "image_size": 64}, {"backbone": "test_efficientnet"})


def make_real_study(root: Path, trials: int = 3) -> StudyFolder:
    """Make a study whose trials have real weights; their logits are made up."""
    spec = StudySpec(
        [Trial(noise=2.0, scale=0.7) for _ in range(trials)]
        + [Trial(skill=0.1, state=TrialState.PRUNED)]
    )
    folder = make_study(root, spec)
    for number in range(trials + 1):
        trial = folder.trial(number)
        config = build_config(
            TINY[number % 2]
            | {"pretrained": False, "seed": number, "image_size": 64 + 32 * (number % 2)}
        )
        trial.write_record(trial.record().model_copy(update={"config": config}))
        classifier = build_classifier(config, spec.classes).classifier
        save_classifier(classifier.state_dict(), trial.weights_file, input_spec(config))
    return folder


def draw_images(folder: Path, count: int = 5) -> list[Path]:
    """Write noise pictures of several shapes and modes."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(count):
        shape = (60 + 10 * number, 120, 3)
        image = Image.fromarray(rng.integers(0, 256, shape, np.uint8))
        files.append(folder / f"차 {number}.png")
        (image.convert("L") if number == 1 else image).save(files[-1])
    return files


def draw_classes(folder: Path, images_per_class: int = 12) -> Path:
    """Write an image folder of three classes told apart by their colour."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir(parents=True)
        for number in range(images_per_class):
            pixels = rng.integers(0, 256, (80, 100 + 10 * place, 3))
            pixels[..., place] = 255 - pixels[..., place] // 4
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder
