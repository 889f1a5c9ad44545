"""A made-up study whose trials learn, are stopped and are trained again, as real ones do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from carray.config import build_config
from carray.files import write_json
from carray.records import StudyFolder, StudyRecord, TrialRecord, TrialState
from carray.reports.listing import find_shown, shown_lines
from carray.runs_folder import RunsFolder

BACKBONES = {
    "convnext_atto.d2_in1k": (3e-4, 0.62),
    "resnet18.a1_in1k": (1e-3, 0.85),
    "mobilenetv3_small_050.lamb_in1k": (2e-3, 1.1),
}


def show_lines(runs: RunsFolder, name: str, image_size: int | None = None) -> list[str]:
    return shown_lines(runs, find_shown(runs, name, image_size))


def make_study(root: Path, trials: int = 18, refits: int = 3, seed: int = 0) -> StudyFolder:
    rng = np.random.default_rng(seed)
    folder = RunsFolder(root).study("toycars-quick")
    records = [search_trial(number, rng) for number in range(trials)]
    best = sorted(records, key=lambda record: record.best("val/log_loss"))[:refits]
    records += [refit(trials + place, record, rng) for place, record in enumerate(best)]
    StudyRecord(
        name="toycars-quick",
        manifest_hash="m" * 64,
        trials=trials,
        started_at=990.0,
        ended_at=1990.0,
        state="complete",
    ).write(folder.record_file)
    for record in records:
        folder.trial(record.number).write_record(record)
    return folder


def search_trial(number: int, rng: np.random.Generator) -> TrialRecord:
    backbone = list(BACKBONES)[int(rng.integers(3))]
    ideal, floor = BACKBONES[backbone]
    lr = float(10 ** rng.uniform(-4.5, -2.0))
    missed = abs(math.log10(lr / ideal))
    epochs = 9 if missed < 0.6 else (3 if missed < 1.0 else 1)
    state = TrialState.COMPLETE if epochs == 9 else TrialState.PRUNED
    if number == 7:
        state, epochs = TrialState.FAILED, 1
    return record_of(number, backbone, lr, epochs, state, floor + 0.5 * missed, rng)


def refit(number: int, record: TrialRecord, rng: np.random.Generator) -> TrialRecord:
    lr, floor = record.config.optimizer.lr, record.best("val/log_loss") * 0.85
    backbone = record.config.backbone
    made = record_of(number, backbone, lr, 18, TrialState.COMPLETE, floor, rng)
    return made.model_copy(update={"kind": "refit", "refit_of": record.number})


def record_of(
    number: int,
    backbone: str,
    lr: float,
    epochs: int,
    state: TrialState,
    floor: float,
    rng: np.random.Generator,
) -> TrialRecord:
    losses = [
        floor + (2.48 - floor) * math.exp(-epoch / 2.5) + 0.04 * rng.normal()
        for epoch in range(1, epochs + 1)
    ]
    rows = tuple(
        {
            "val/log_loss": loss,
            "val/calibrated_log_loss": loss,
            "val/top1": math.exp(-0.8 * loss),
            "train/loss": loss * 0.9,
            "epoch_seconds": 4.0,
        }
        for loss in losses
    )
    params: dict[str, Any] = {"backbone": backbone, "optimizer.lr": lr}
    started = 1000.0 + 42.0 * number
    return TrialRecord(
        study="toycars-quick",
        number=number,
        state=state,
        params=params,
        config=build_config(params),
        epochs=rows,
        started_at=started,
        ended_at=started + 4.0 * epochs,
        reason="out of patience" if state is TrialState.FAILED else "",
    )


def add_ensemble(folder: StudyFolder, verdict: str = "better") -> None:
    write_json(
        folder.ensembles / "top3.json",
        {
            "test": {
                "verdict": verdict,
                "images": 108,
                "log_loss_p": 0.003,
                "top1_p": 0.04,
                "single": scores(0.74, 0.09, 0.721, 0.08),
                "ensemble": scores(0.61, 0.07, 0.803, 0.07),
            }
        },
    )


def scores(loss: float, loss_half: float, top1: float, top1_half: float) -> dict[str, Any]:
    return {
        "log_loss": {"value": loss, "low": loss - loss_half, "high": loss + loss_half},
        "top1": {"value": top1, "low": top1 - top1_half, "high": top1 + top1_half},
    }
