"""LCBench's door: what is asked of the surrogate, and how its folder is checked.

The model itself is not part of the project; a function in its place shows what it is asked.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from carray.errors import ConfigError, RecordError
from carray.search_benchmark import lcbench
from carray.search_benchmark.lcbench import INPUTS, LcBench, open_lcbench

TASKS = ["3945", "7593", "34539", "126025"]
POINT = {
    "batch_size": 32,
    "learning_rate": 0.01,
    "momentum": 0.9,
    "weight_decay": 0.001,
    "num_layers": 3,
    "max_units": 128,
    "max_dropout": 0.25,
}


def number(name: str, low: float, high: float, log: bool = False, whole: bool = False) -> Any:
    kind = "uniform_int" if whole else "uniform_float"
    return {"name": name, "type": kind, "lower": low, "upper": high, "log": log}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    hyperparameters = [
        {"name": "OpenML_task_id", "type": "categorical", "choices": TASKS},
        number("epoch", 1, 52, whole=True),
        number("batch_size", 16, 512, log=True, whole=True),
        number("learning_rate", 1e-4, 0.1, log=True),
        number("momentum", 0.1, 0.99),
        number("weight_decay", 1e-5, 0.1),
        number("num_layers", 1, 5, whole=True),
        number("max_units", 64, 1024, log=True, whole=True),
        number("max_dropout", 0.0, 1.0),
    ]
    (tmp_path / "model.onnx").touch()
    for name, content in (
        ("config_space", {"hyperparameters": hyperparameters}),
        ("encoding", {"OpenML_task_id": {"#na#": 0, **{t: i + 1 for i, t in enumerate(TASKS)}}}),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


class Asked:
    """Answers with the epoch in each column, so that a curve counts 1, 2, 3."""

    def run(self, outputs: None, inputs: dict[str, Any]) -> list[Any]:
        self.inputs = inputs
        return [np.repeat(inputs["x_cont"][:, :1], 6, axis=1)]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    session = Asked()
    monkeypatch.setattr(lcbench, "_session", lambda folder: session)
    return session


def test_all_epochs_of_all_trials_are_asked_in_one_call(folder: Path, asked: Asked) -> None:
    source = LcBench(folder, "34539", "val/log_loss")
    curves = source.curves([POINT, {**POINT, "momentum": 0.5}])
    assert curves.shape == (2, 52) and curves[1].tolist() == list(range(1, 53))
    assert asked.inputs["x_cat"].dtype == np.int32
    assert set(asked.inputs["x_cat"].ravel()) == {3}
    numbers = asked.inputs["x_cont"]
    assert numbers.dtype == np.float32 and numbers.shape == (104, 8)
    assert numbers[51].tolist() == pytest.approx([52, *(POINT[name] for name in INPUTS)])
    assert numbers[52, [0, 3]].tolist() == pytest.approx([1, 0.5])


def test_accuracy_is_a_share(folder: Path, asked: Asked) -> None:
    assert LcBench(folder, "3945", "val/top1").curves([POINT])[0, -1] == pytest.approx(0.52)


def test_draws_lie_in_the_space_and_past_trials_are_those_of_a_random_search(
    folder: Path, asked: Asked
) -> None:
    source = LcBench(folder, "3945")
    drawn = source.draw(optuna.create_study().ask())
    assert list(drawn) == list(INPUTS)
    assert isinstance(drawn["batch_size"], int) and 16 <= drawn["batch_size"] <= 512
    past = source.past(0)
    assert past.curves.shape == (lcbench.PAST_TRIALS, 52) and past.full.all()
    assert past.points == source.past(0).points != source.past(1).points
    point = source.starts([past], 2)[0]
    study = optuna.create_study()
    study.enqueue_trial(point)
    assert source.draw(study.ask()) == point


def test_data_sets_are_spread_over_the_list(folder: Path) -> None:
    assert [s.name for s in open_lcbench(folder, 2, "val/top1")] == ["3945", "34539"]
    assert [s.name for s in open_lcbench(folder, 4, "val/top1")] == TASKS


def test_what_is_not_there_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--data-sets 5 must be from 1 to 4"):
        open_lcbench(folder, 5, "val/top1")
    with pytest.raises(ConfigError, match="--metric val/macro_f1 must be one of"):
        open_lcbench(folder, 1, "val/macro_f1")
    with pytest.raises(RecordError, match="give LCBench's folder to --lcbench"):
        open_lcbench(folder / "nowhere", 1, "val/top1")
