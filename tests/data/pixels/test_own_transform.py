"""A user's own transform of training images is called as it expects, seeded, and checked first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from carray.cli.app import app
from carray.config import AugmentConfig
from carray.data.pixels.loader import Images, Loader, TrainPlan
from carray.data.pixels.own_transform import load_transform, transform_note
from carray.errors import ConfigError
from carray.runs_folder import RunsFolder
from carray.search.dry_run import dry_run
from carray.search.placement.node_report import NodeQuestion, node_report, problems
from carray.search.request import StudyRequest
from carray.training.reproduce import reproduce
from carray.training.train import train
from tests.training.orders import SMALL

MODULE = """
import random
import numpy as np
import torch
from torchvision.transforms import v2

noisy = v2.Compose([v2.RandomInvert(0.5), v2.RandomSolarize(128, 0.5)])
number = 3

class Dark:
    def __call__(self, image: np.ndarray) -> np.ndarray:
        assert image.shape[2] == 3
        return image // random.choice([2, 3, 4]) + np.random.randint(5)

dark = Dark()

def halved(image):
    assert image.shape[0] == 3
    return image // 2

def small(image):
    return image[:, 1:]

def scaled(image):
    return image / 255

def broken(image):
    raise RuntimeError("no such colour")
"""
Written = Callable[[str], str]


@pytest.fixture
def written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Written:
    """Write `MODULE` beside where the test runs; return an attribute's entry point."""
    name = f"own_{abs(hash(request.node.nodeid))}"  # Python imports a name once
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return lambda attribute: f"{name}:{attribute}"


def plan_of(transform: str, strength: float = 0.0) -> TrainPlan:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3), np.uint8)
    images = Images(pixels, np.arange(24, dtype=np.int64) % 3)
    augment = AugmentConfig(strength=strength, flip=False, transform=transform)
    return TrainPlan(images, np.arange(24), 8, 20, augment, (1, 1, 0), False, False)


@pytest.mark.parametrize("name", ["noisy", "dark"])
def test_a_batch_is_the_same_whoever_makes_it_and_leaves_other_random_numbers_alone(
    written: Written, name: str
) -> None:
    plan = plan_of(written(name), strength=0.3)
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    batches = [batch.images for batch in Loader(plan, 0)]
    assert torch.equal(torch.rand(4), wanted)
    for ours, theirs in zip(Loader(plan, 3), batches, strict=True):
        assert torch.equal(ours.images, theirs)
    other = replace(plan, seeds=(1, 2, 0), augment=plan_of(written(name)).augment)
    assert not torch.equal(other.make(0).images, replace(other, seeds=(1, 3, 0)).make(0).images)


def test_it_comes_after_all_else_and_takes_tensors_or_arrays(written: Written) -> None:
    plain, halved = plan_of("", 0.5).make(1).images, plan_of(written("halved"), 0.5).make(1).images
    assert torch.equal(halved, plain // 2)
    assert load_transform(written("dark")).takes == "array"
    assert load_transform(written("halved")).takes == "tensor"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "must be package.module:function, as in my_augment:soften"),
        ("no_such_module:it", "can't be imported: ModuleNotFoundError: No module named 'no_such_"),
        ("json:loud", "can't be imported: AttributeError"),
        ("number", "is of kind int and must be a function, or an object that can be called"),
        ("Dark", "is of kind class and must be"),
        ("small", r"a tensor of uint8 \(3, 16, 16\) and must return the same, not a tensor of uin"),
        ("scaled", r"not a tensor of float32 \(3, 16, 16\); images are normalised after it"),
        ("broken", r"fails on a tensor of uint8 \(3, 16, 16\): RuntimeError: no such colour"),
    ],
)
def test_what_cannot_serve_is_refused_before_anything_starts(
    written: Written, name: str, said: str
) -> None:
    entry = name if name == "nothing" or ":" in name else written(name)
    with pytest.raises(ConfigError, match=said):
        transform_note(AugmentConfig(transform=entry), 16)


def test_a_trial_with_one_says_its_cost_records_its_code_and_repeats(
    written: Written, toy_data: Path, tmp_path: Path
) -> None:
    sets = [f"--set={name}={value}" for name, value in (SMALL | {"epochs": 1}).items()]
    command = ["train", str(toy_data), *sets, f"--set=augment.transform={written('noisy')}"]
    result = CliRunner().invoke(app, [*command, "--set=dropout=0.5", "--runs", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert f"transform {written('noisy')}: " in result.output.splitlines()[1]
    record = RunsFolder.at(tmp_path).find_trial("single/0000").record()
    assert record.config.augment.transform == written("noisy")
    assert len(record.versions["augment.transform"]) == 8
    assert reproduce("single/0000", runs=tmp_path).agrees
    file = tmp_path / f"{written('noisy').partition(':')[0]}.py"
    file.write_text(MODULE + "\n# changed\n")
    again = reproduce("single/0000", runs=tmp_path)
    assert any(note.startswith("augment.transform ") for note in again.notes)


def test_frozen_backbones_are_run_on_transformed_images(
    written: Written, toy_data: Path, tmp_path: Path
) -> None:
    changed = {"finetune.policy": "head_only", "epochs": 1, "augment.strength": 0.0}
    losses = [
        train(
            toy_data, SMALL | changed | {"augment.transform": own}, runs=tmp_path / str(bool(own))
        ).epochs[0]["train/loss"]
        for own in ("", written("noisy"))
    ]
    assert losses[0] != losses[1]


def test_a_study_says_the_cost_and_refuses_any_choice_that_fails(
    written: Written, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    space = tmp_path / "space.yaml"
    head = (
        "version: 1\nfixed: {backbone: test_resnet, pretrained: false, image_size: 32}\nsearch:\n"
    )
    asked = StudyRequest(data=toy_data, space=str(space), trials=1, runs=str(tmp_path / "runs"))
    space.write_text(f"{head}  augment.transform: {{choice: ['', '{written('dark')}']}}\n")
    assert any(f"transform {written('dark')}: " in line for line in dry_run(asked).lines())
    space.write_text(f"{head}  augment.transform: {{choice: ['', '{written('broken')}']}}\n")
    with pytest.raises(ConfigError, match="no such colour"):
        dry_run(asked)


def test_a_node_without_it_or_with_other_code_gets_no_lane(written: Written) -> None:
    entry = written("halved")
    for asked, said in (
        ((entry, "0" * 8), f"augment.transform='{entry}' is other code there"),
        (("gone:it", "0" * 8), "augment.transform='gone:it' can't be imported: ModuleNotFound"),
    ):
        question = NodeQuestion(transforms=(asked,))
        [problem] = problems(node_report(question), question)
        assert problem.startswith(said)
