"""Small made-up studies, told to trackers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from carray.config import build_config
from carray.records import StudyFolder, StudyRecord, TrialRecord, TrialState
from carray.runs_folder import RunsFolder


def make_study(runs: RunsFolder, name: str = "autumn") -> StudyFolder:
    folder = runs.study(name)
    record = StudyRecord(
        name=name, manifest_hash="abc", classes=("소나타", "A/B"), started_at=1000.5, trials=2
    )
    record.write(folder.record_file)
    folder.space_file.write_text("version: 1\n")
    folder.write_labels({"val": np.array([0, 1, 0]), "blend": np.array([1])})
    return folder


def make_record(number: int, epochs: int, state: TrialState = TrialState.RUNNING) -> TrialRecord:
    params = {"optimizer.lr": 0.01 / (number + 1), "backbone": "resnet18"}
    losses = {epoch: 1.0 / (epoch + number) for epoch in range(1, epochs + 1)} | {3: 9.0}
    rows = tuple(
        {
            "val/log_loss": losses[epoch],
            "val/calibrated_log_loss": losses[epoch],
            "val/top1": 0.1 * epoch,
            "train/loss": 2.0 / epoch,
            "epoch_seconds": 1.5,
            "images_per_second": 100.0 * epoch,
        }
        for epoch in range(1, epochs + 1)
    )
    return TrialRecord(
        study="autumn",
        number=number,
        state=state,
        params=params,
        config=build_config(params),
        epochs=rows,
        manifest_hash="abc",
        git_commit="f00",
        started_at=1001.0 + number,
        ended_at=1100.0 + number if state.is_finished() else None,
        reason="stopped at rung 2" if state is TrialState.PRUNED else "",
    )


def end_trial(folder: StudyFolder, record: TrialRecord) -> Path:
    trial = folder.trial(record.number)
    trial.write_record(record)
    trial.write_logits({"val": np.ones((3, 2)), "blend": np.zeros((1, 2))})
    return trial.path
