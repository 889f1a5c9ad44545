"""A linear probe, a random forest or nearest neighbours on a trial's features, as a trial.

It leaves what any trial leaves: a record, logits, and weights (the backbone's with the new head),
so that ensembles, packages and predictions need not know.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from carray import metrics
from carray.config import (
    CLASSICAL_HEADS,
    CLASSICAL_SETTINGS,
    HeadConfig,
    InputSpec,
    TrialConfig,
    build_config,
)
from carray.data.manifest import Manifest
from carray.errors import ConfigError, DataError, WeightsError, did_you_mean
from carray.models.backbones import stored_input_spec
from carray.models.classifier import Classifier, load_classifier, save_classifier
from carray.progress import silent
from carray.records import StudyFolder, TrialFolder, TrialRecord, TrialState
from carray.remote_studies import fetched_weights
from carray.runs_folder import RunsFolder
from carray.training.dataset import TrialData, open_data
from carray.training.features.fits import FITS, FeatureDataset
from carray.training.features.pooled import Features, pooled_features
from carray.training.ranks import SoloRanks
from carray.training.scores import ScoreSums
from carray.training.train import claim_trial_number, default_device, open_single_study
from carray.training.trial_state import build_numerics, default_compute
from carray.typing import Labels, Progress

EMPTY_ROW = (metrics.LR, metrics.DATA_WAIT, metrics.PEAK_MEMORY_GIB)  # nothing to tell, so 0


def train_feature_classifier(
    data: str | os.PathLike[str],
    classifier: str,
    features_of: str,
    *,
    runs: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    progress: Progress = silent,
) -> TrialRecord:
    """Fit a classical head to a trial's features, as the next trial of that trial's study.

    Args:
        data: the folder that the trial was trained on.
        classifier: one of `CLASSICAL_HEADS`.
        features_of: the trial, `STUDY/NUMBER` or its folder; its weights must be there.
        runs: the runs folder.
        settings: dotted names and values, `head.n_estimators` and the like, or `seed`; of those
            without a default, what they leave open is chosen on `val`.
        seed: of the forest; None takes the trial's own.
        progress: shows how far the features are.

    Raises:
        ConfigError: the classifier is unknown, or has no such setting.
        DataError: the trial was trained on other data.
        RecordError: there is no such trial, or a search is running in its study.
        WeightsError: the disk budget has taken its weights.
    """
    if classifier not in CLASSICAL_HEADS:
        raise ConfigError(
            f"unknown classifier {classifier!r}{did_you_mean(classifier, CLASSICAL_HEADS)}; "
            f"one of {', '.join(CLASSICAL_HEADS)}"
        )
    source = RunsFolder.at(runs).find_trial(features_of)
    record = source.record()
    _check_source(source, record, Manifest.load(os.fspath(data)))
    bare = record.config.model_copy(
        update={"head": HeadConfig.model_validate({"kind": classifier})}
    )
    seeded = {} if seed is None else {"seed": seed}
    config = build_config({**seeded, **_checked_settings(classifier, settings or {})}, bare)
    study = StudyFolder(source.path.parent.parent)
    start = time.time()
    trial_data = open_data(os.fspath(data), config, progress)
    fitted = _fit(source.weights_file, record.config, config, trial_data, progress)
    with study.locked(), claim_trial_number(study) as number:
        return _leave(study, number, record.name, record.manifest_hash, config, fitted, start)


def _checked_settings(classifier: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse what the classifier doesn't read: the rest of its configuration is the trial's."""
    known = [*(f"head.{name}" for name in CLASSICAL_SETTINGS[classifier]), "seed"]
    for name in settings:
        if name not in known:
            raise ConfigError(
                f"--classifier takes its configuration from --features-of: drop --set {name}"
                f"{did_you_mean(name, known)}; {classifier} has {', '.join(known)}"
            )
    return settings


def refit_feature_classifier(
    data: str | os.PathLike[str],
    config: TrialConfig,
    weights_file: Path,
    *,
    features_of: str,
    study: str,
    runs: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> TrialRecord:
    """Fit a classical classifier's head again to other data, as the next trial of `study`.

    Args:
        data: a folder made by `carray.prepare`; its classes may be others.
        config: the classifier's.
        weights_file: its weights, whose backbone is kept.
        features_of: the trial that it was, for the record.
        study: the folder among `runs` that collects single trials, made where it isn't there.
        runs: where studies live; `$CARRAY_RUNS`, else `./runs`.
        progress: shows how far the features are.

    Raises:
        RecordError: `study` is a search, or of other data.
        WeightsError: the file can't be read or isn't this classifier's.
    """
    start, manifest = time.time(), Manifest.load(os.fspath(data))
    trial_data = open_data(os.fspath(data), config, progress)
    fitted = _fit(weights_file, config, config, trial_data, progress)
    folder = open_single_study(RunsFolder.at(runs), study, manifest)
    with folder.locked(), claim_trial_number(folder) as number:
        return _leave(folder, number, features_of, manifest.hash, config, fitted, start)


def _check_source(source: TrialFolder, record: TrialRecord, manifest: Manifest) -> None:
    if record.manifest_hash != manifest.hash:
        raise DataError(
            f"the features of {record.name} are of the data set {record.manifest_hash[:12]}, not "
            f"of {manifest.folder} ({manifest.hash[:12]}): name a trial of these data"
        )
    if not fetched_weights(source).exists():
        raise WeightsError(
            f"{record.name} has no weights any more, so no features: name a trial that has them"
        )


@dataclass(frozen=True, eq=False)
class _Fitted:
    classifier: Classifier
    logits: dict[str, Tensor]
    chosen: dict[str, Any]
    row: dict[str, float]
    spec: InputSpec


def _fit(
    weights_file: Path,
    old: TrialConfig,
    config: TrialConfig,
    data: TrialData,
    progress: Progress,
) -> _Fitted:
    """Compute features, fit the head, and judge it on `val`."""
    start = time.monotonic()
    num_classes, device = len(data.classes), default_device()
    spec = stored_input_spec(old, weights_file)
    backbone = load_classifier(old, num_classes, weights_file)
    model = Classifier(config, num_classes)
    model.backbone.load_state_dict(backbone.backbone.state_dict())
    numerics = build_numerics(spec, default_compute(config, model, device), device)
    model.to(device, memory_format=numerics.memory_format)  # type: ignore[call-overload]
    rows = {"train": data.train, **data.held}
    features = {
        split: pooled_features(model, data, own, config, numerics, progress)
        for split, own in rows.items()
    }
    labels = {split: np.asarray(data.images.labels[own]) for split, own in rows.items()}
    known = FeatureDataset(
        features["train"], labels["train"], features["val"], labels["val"], num_classes
    )
    tensors, chosen = FITS[config.head.kind](known, config.seed, config.head)
    model.cpu().eval().head.load_state_dict(tensors)
    logits = {split: _head(model, own) for split, own in features.items()}
    row = _row(logits, labels, num_classes, time.monotonic() - start)
    return _Fitted(model, {split: logits[split] for split in data.held}, chosen, row, spec)


@torch.inference_mode()
def _head(model: Classifier, features: Features) -> Tensor:
    logits: Tensor = model.head(torch.from_numpy(features))
    return logits


def _row(
    logits: Mapping[str, Tensor], labels: Mapping[str, Labels], num_classes: int, seconds: float
) -> dict[str, float]:
    scores = ScoreSums(num_classes, torch.device("cpu"))
    scores.add(logits["val"], torch.from_numpy(labels["val"]))
    train = F.cross_entropy(logits["train"].float(), torch.from_numpy(labels["train"]))
    right = logits["train"].argmax(dim=1) == torch.from_numpy(labels["train"])
    images = sum(map(len, labels.values()))
    return {
        metrics.TRAIN_LOSS: float(train),
        metrics.TRAIN_TOP1: float(right.float().mean()),
        **scores.reduced(SoloRanks()),
        metrics.IMAGES_PER_SECOND: images / seconds,
        metrics.EPOCH_SECONDS: seconds,
        **dict.fromkeys(EMPTY_ROW, 0.0),
    }


def _leave(
    study: StudyFolder,
    number: int,
    features_of: str,
    manifest_hash: str,
    config: TrialConfig,
    fitted: _Fitted,
    start: float,
) -> TrialRecord:
    """Write the trial: weights, logits, then the record that says they are there."""
    folder = study.trial(number)
    state = fitted.classifier.state_dict()
    save_classifier(state, folder.weights_file, fitted.spec)
    folder.write_logits({split: logits.numpy() for split, logits in fitted.logits.items()})
    record = TrialRecord.begin(
        study.path.name,
        number,
        config,
        manifest_hash,
        kind="single",
        state=TrialState.COMPLETE,
        params={"head.kind": config.head.kind, "features_of": features_of, **fitted.chosen},
        epochs=(fitted.row,),
        initialisation=f"features of {features_of}",
        parameters=sum(tensor.numel() for tensor in state.values()),
        started_at=start,
        ended_at=time.time(),
    )
    folder.write_record(record)
    return record
