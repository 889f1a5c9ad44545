"""LCBench as curves: small networks on tabular data sets, by the surrogate of YAHPO Gym.

Zimmer et al., "Auto-PyTorch", TPAMI 2021; Pfisterer et al., "YAHPO Gym", AutoML 2022. A folder
with `model.onnx`, `config_space.json` and `encoding.json`; onnxruntime runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from carray import metrics
from carray.errors import ConfigError, RecordError
from carray.files import read_json
from carray.search.warm_start.study_curves import RecordedStudy
from carray.search_benchmark.curves import Params
from carray.typing import Float64s

if TYPE_CHECKING:
    import optuna

TASK = "OpenML_task_id"
EPOCH = "epoch"
# The order of the model's numbers, epoch first, and the columns of its answer that are used.
INPUTS = (
    "batch_size",
    "learning_rate",
    "momentum",
    "weight_decay",
    "num_layers",
    "max_units",
    "max_dropout",
)
OUTPUTS = {metrics.VAL_TOP1: (1, 0.01), metrics.VAL_LOG_LOSS: (2, 1.0)}  # column, factor
PAST_TRIALS = 60  # random full-length trials that each other data set is taken to have left


class LcBench:
    """One of LCBench's data sets."""

    def __init__(self, folder: Path, task: str, metric: str = metrics.VAL_LOG_LOSS) -> None:
        if metric not in OUTPUTS:
            raise ConfigError(f"--metric {metric} must be one of {', '.join(OUTPUTS)} for LCBench")
        self.name = task
        self.data = task
        self.metric = metric
        self.note = ""
        self._folder = folder
        names = {h["name"]: h for h in _files(folder)["config_space"]["hyperparameters"]}
        self._ranges = [names[name] for name in INPUTS]
        self.max_epochs = int(names[EPOCH]["upper"])
        self.code = int(_files(folder)["encoding"][TASK][task])

    def draw(self, trial: optuna.Trial) -> Params:
        """Draw the seven hyperparameters."""
        return {r["name"]: _suggest(trial, r) for r in self._ranges}

    def curves(self, drawn: Sequence[Params]) -> Float64s:
        """Ask the surrogate for all epochs of all trials in one call."""
        points = np.array([[p[name] for name in INPUTS] for p in drawn], np.float32)
        epochs = np.tile(np.arange(1, self.max_epochs + 1, dtype=np.float32), len(points))
        numbers = np.column_stack([epochs, np.repeat(points, self.max_epochs, axis=0)])
        tasks = np.full((len(numbers), 1), self.code, np.int32)
        answer = _session(self._folder).run(None, {"x_cat": tasks, "x_cont": numbers})[0]
        column, factor = OUTPUTS[self.metric]
        curves: Float64s = answer[:, column].reshape(len(points), -1).astype(np.float64) * factor
        return curves

    def past(self, seed: int) -> RecordedStudy:
        """Return a random search without stopping on this data set."""
        return _random_search(self._folder, self.data, self.metric, seed)

    def starts(self, past: Sequence[RecordedStudy], size: int) -> list[dict[str, Any]]:
        """Take the portfolio of the other data sets as it is: they have the same space."""
        from carray.search.warm_start.portfolio import choose

        return [dict(past[s].points[t]) for s, t in choose(past, size)] if past else []


@cache  # every other data set asks for the same ones
def _random_search(folder: Path, task: str, metric: str, seed: int) -> RecordedStudy:
    import optuna

    source = LcBench(folder, task, metric)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=source.code + seed))
    points = tuple(source.draw(study.ask()) for _ in range(PAST_TRIALS))
    full = np.ones(PAST_TRIALS, np.bool_)
    return RecordedStudy(task, task, metric, points, source.curves(points), full)


def open_lcbench(folder: Path, count: int, metric: str) -> list[LcBench]:
    """Return `count` of the data sets, evenly spread over their list.

    Raises:
        ConfigError: `count` is not between 1 and how many there are, or the metric isn't there.
        RecordError: the folder isn't LCBench's.
    """
    spec = next(h for h in _files(folder)["config_space"]["hyperparameters"] if h["name"] == TASK)
    tasks = [str(task) for task in spec["choices"]]
    if not 1 <= count <= len(tasks):
        raise ConfigError(f"--data-sets {count} must be from 1 to {len(tasks)}")
    chosen = [tasks[index * len(tasks) // count] for index in range(count)]
    return [LcBench(folder, task, metric) for task in chosen]


@lru_cache
def _files(folder: Path) -> Mapping[str, Any]:
    names = ("config_space", "encoding")
    if not (folder / "model.onnx").is_file():
        raise RecordError(f"{folder} has no model.onnx; give LCBench's folder to --lcbench")
    return {name: read_json(folder / f"{name}.json") for name in names}


@lru_cache
def _session(folder: Path) -> Any:
    """Load the model once a process; one thread, for curves come in small batches."""
    try:
        import onnxruntime
    except ImportError:
        raise RecordError(
            "LCBench needs onnxruntime; install carray with its dev extra, or onnxruntime alone"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(folder / "model.onnx"), options)


def _suggest(trial: optuna.Trial, spec: Mapping[str, Any]) -> float | int:
    """Draw one hyperparameter; wide whole numbers as real ones, which TPE models 5 times faster."""
    low, high, log = spec["lower"], spec["upper"], bool(spec["log"])
    if spec["type"] == "uniform_int" and not log:
        return int(trial.suggest_int(spec["name"], int(low), int(high)))
    value = float(trial.suggest_float(spec["name"], low, high, log=log))
    return round(value) if spec["type"] == "uniform_int" else value
