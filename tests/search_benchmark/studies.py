"""Made-up data sets whose best recipe is known, and past studies of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from carray.config import build_config
from carray.files import write_text
from carray.records import StudyFolder, StudyRecord, TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.search.warm_start.study_curves import RecordedStudy
from carray.search_benchmark.curves import Params
from carray.typing import Float64s

SPACE = """
version: 1
metric: val/log_loss
fixed: {epochs: 9, pretrained: false}
search:
  optimizer.lr: {loguniform: [1e-4, 1e-1]}
  dropout:      {uniform: [0.0, 0.5]}
"""
EPOCHS = 9


@dataclass(frozen=True)
class Hill:
    """Loss falls to a floor that grows with the distance of log10(lr) from `ideal`."""

    ideal: float
    max_epochs: int = EPOCHS
    metric: str = "val/log_loss"
    note: str = ""

    @property
    def name(self) -> str:
        return f"hill{self.ideal}"

    @property
    def data(self) -> str:
        return self.name

    def draw(self, trial: optuna.Trial) -> Params:
        return {
            "optimizer.lr": trial.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True),
            "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        }

    def curves(self, drawn: Sequence[Params]) -> Float64s:
        losses = [
            hill_losses(self.ideal, point["optimizer.lr"], self.max_epochs) for point in drawn
        ]
        return np.array(losses)

    def past(self, seed: int) -> RecordedStudy:
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        points = tuple(self.draw(study.ask()) for _ in range(20))
        full = np.ones(20, np.bool_)
        return RecordedStudy(self.name, self.data, self.metric, points, self.curves(points), full)

    def starts(self, past: Sequence[RecordedStudy], size: int) -> list[dict[str, Any]]:
        from carray.search.warm_start.portfolio import choose

        return [dict(past[s].points[t]) for s, t in choose(past, size)] if past else []


def hill_losses(ideal: float, lr: float, epochs: int) -> list[float]:
    floor = 0.2 + abs(math.log10(lr) - ideal)
    return [floor + (3.0 - floor) * math.exp(-epoch / 2) for epoch in range(1, epochs + 1)]


def past_study(
    root: Path,
    name: str = "past",
    ideal: float = -2.0,
    trials: int = 20,
    stop_above: float = 1.2,
    metric: str = "val/log_loss",
    **fixed: Any,
) -> StudyFolder:
    """A study's records: a trial whose loss at epoch 3 is above `stop_above` was stopped there."""
    rng = np.random.default_rng(trials)
    folder = RunsFolder(root).study(name)
    StudyRecord(name=name, manifest_hash=f"data of {ideal}", metric=metric, trials=trials).write(
        folder.record_file
    )
    write_text(folder.space_file, SPACE)
    for number in range(trials):
        params = {
            "optimizer.lr": float(10 ** rng.uniform(-4, -1)),
            "dropout": float(rng.uniform(0, 0.5)),
        }
        losses = hill_losses(ideal, params["optimizer.lr"], EPOCHS)
        stopped = losses[2] > stop_above
        record = TrialRecord(
            study=name,
            number=number,
            state=TrialState.PRUNED if stopped else TrialState.COMPLETE,
            params=params,
            config=build_config({"epochs": EPOCHS, "pretrained": False, **params, **fixed}),
            epochs=tuple(
                {"val/log_loss": loss, "val/calibrated_log_loss": loss, "val/top1": math.exp(-loss)}
                for loss in losses[: 3 if stopped else EPOCHS]
            ),
        )
        folder.trial(number).write_record(record)
    return folder
