"""A teacher answers as its package does, and what it teaches is learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from carray.config import TrialConfig, build_config
from carray.data.pixels.loader import to_device
from carray.inference.package import write_package
from carray.inference.predictor import load_model, open_stores
from carray.predictions.averaging import WeightedAverage
from carray.predictions.combination import Combination
from carray.progress import silent
from carray.training.teacher import load_teacher
from tests.trained import Trained
from tests.training.orders import new_runner, run, small_config

CPU = torch.device("cpu")


def _package(trained: Trained, folder: Path, average: WeightedAverage) -> Path:
    trials = [trained.study.trial(number) for number in (0, 1)]
    write_package(folder / "toy", trained.study.record(), trials, Combination(average, "soft vote"))
    return folder / "toy"


def _taught(package: Path) -> TrialConfig:
    return build_config({"distill.teacher": str(package)})


@pytest.mark.parametrize("space", ["probability", "logit", "vote"])
def test_a_teacher_says_what_its_package_says(trained: Trained, tmp_path: Path, space: str) -> None:
    average = WeightedAverage((0, 1), (0.75, 0.25), space, 1.5)  # type: ignore[arg-type]
    package = _package(trained, tmp_path, average)
    model = load_model(package, "cpu")
    rows = trained.manifest.rows("blend")[:8]
    squares = {
        name: store[rows]
        for name, store in open_stores(trained.manifest, model.members, silent).items()
    }
    wanted, _ = model.answer(squares)
    [square] = squares.values()
    pixels, _ = to_device(model.members[0].plan(square).make(0), CPU)
    teacher = load_teacher(_taught(package), CPU)
    assert teacher is not None
    np.testing.assert_allclose(teacher(pixels), wanted, atol=2e-5)


def test_a_teacher_alone_moves_a_student_towards_its_answers(
    trained: Trained, tmp_path: Path
) -> None:
    package = _package(trained, tmp_path, WeightedAverage((0, 1), (0.5, 0.5)))
    losses = []
    for weight in (0.0, 1.0):
        config = small_config(distill__teacher=str(package), distill__weight=weight)
        rows = run(new_runner(), tmp_path / str(weight), trained.data, config, 1)
        losses.append(rows[-1]["train/loss"])
    plain = run(new_runner(), tmp_path / "plain", trained.data, small_config(), 1)
    assert losses[0] == plain[-1]["train/loss"]
    assert losses[1] != losses[0]
