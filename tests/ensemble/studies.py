"""Made-up studies whose trials' logits have a known amount of shared and own error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from carray.config import build_config
from carray.records import StudyFolder, StudyRecord, TrialRecord, TrialState
from carray.runs_folder import RunsFolder

BACKBONES = ("resnet18", "mobilenetv3_small_050", "convnext_atto")


@dataclass(frozen=True)
class Trial:
    """One trial to make up: `skill` scales the signal, `noise` its own error."""

    skill: float = 2.0
    noise: float = 1.0
    state: TrialState = TrialState.COMPLETE
    refit_of: int | None = None
    same_as: int | None = None
    has_weights: bool = True
    scale: float = 1.0
    epochs: int = 2
    fold: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class StudySpec:
    """A study to make up."""

    trials: Sequence[Trial]
    images: dict[str, int] = field(default_factory=lambda: {"val": 300, "blend": 300, "test": 400})
    classes: int = 6
    name: str = "autumn"
    started_at: float = 1000.0
    seed: int = 0
    trials_seed: int = 1
    """Of what trials err by: studies that differ in it alone are of one data set."""
    metric: str = "val/log_loss"
    manifest_hash: str = "m" * 64


def make_study(root: Path, spec: StudySpec) -> StudyFolder:
    """Write records, logits and labels; values in the records are those of the logits on val."""
    rng = np.random.default_rng(spec.seed)
    folder = RunsFolder(root).study(spec.name)
    labels = {split: rng.integers(0, spec.classes, count) for split, count in spec.images.items()}
    signal = {split: np.eye(spec.classes)[own] for split, own in labels.items()}
    shared = {split: rng.normal(size=(len(own), spec.classes)) for split, own in labels.items()}
    StudyRecord(
        name=spec.name,
        manifest_hash=spec.manifest_hash,
        metric=spec.metric,
        classes=tuple(f"class {number}" for number in range(spec.classes)),
        started_at=spec.started_at,
    ).write(folder.record_file)
    folder.write_labels(labels)
    if spec.trials_seed != 1:
        rng = np.random.default_rng(spec.trials_seed)
    for number, trial in enumerate(spec.trials):
        logits = {
            split: trial.scale
            * (trial.skill * signal[split] + shared[split] + trial.noise * rng.normal(size=noise))
            for split, noise in ((split, shared[split].shape) for split in labels)
        }
        _write_trial(folder, number, trial, logits, labels["val"])
    return folder


def _write_trial(
    folder: StudyFolder,
    number: int,
    trial: Trial,
    logits: dict[str, npt.NDArray[np.float64]],
    val_labels: npt.NDArray[np.int64],
) -> None:
    place = folder.trial(number)
    params = {"optimizer.lr": 1e-3 / (1 + (number if trial.same_as is None else trial.same_as))}
    params |= {"backbone": BACKBONES[number % 3] if trial.same_as is None else BACKBONES[0]}
    if trial.state is not TrialState.FAILED:
        place.write_logits(logits)
    if trial.has_weights and trial.state is not TrialState.FAILED:
        place.weights_file.write_bytes(b"weights")
    loss, top1 = val_scores(logits["val"], val_labels)
    losses = [loss * (2 - epoch / trial.epochs) for epoch in range(1, trial.epochs + 1)]
    rows = tuple(
        {
            "val/log_loss": loss,
            "val/calibrated_log_loss": loss,
            "val/top1": top1,
            "train/loss": 1.0,
        }
        for loss in losses
    )
    place.write_record(
        TrialRecord(
            study=folder.path.name,
            number=number,
            kind="search" if trial.refit_of is None else "refit",
            state=trial.state,
            params=params,
            config=build_config(
                params
                | {"epochs": 3 if trial.refit_of is None else 9}
                | {"fold": trial.fold, "seed": trial.seed}
            ),
            epochs=() if trial.state is TrialState.FAILED else rows,
            refit_of=trial.refit_of,
            manifest_hash="m" * 64,
            started_at=1000.0 + 10 * number,
            ended_at=1009.0 + 10 * number,
        )
    )


def val_scores(
    logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> tuple[float, float]:
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    loss = float(-np.log(p[np.arange(len(labels)), labels]).mean())
    return loss, float((p.argmax(axis=1) == labels).mean())
