"""What a trial or a package answers on its study's held splits, from stored logits if there are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from carray.data.manifest import Manifest
from carray.errors import ConfigError, DataError, RecordError
from carray.inference.card import Card
from carray.inference.inputs import find_package, package_of, unknown_model
from carray.predictions.combination import SINGLE_TRIAL, Combination
from carray.predictions.labels import held_labels, study_manifest
from carray.predictions.logits import log_softmax, read_logits
from carray.predictions.test_access import record_access
from carray.progress import silent
from carray.records import HELD_SPLITS, StudyFolder, TrialFolder
from carray.runs_folder import RunsFolder
from carray.typing import Float32s, Labels, Progress


@dataclass(frozen=True, eq=False)
class HeldPredictions:
    """Log-probabilities on one split, and what would have been right."""

    model: str
    split: str
    classes: tuple[str, ...]
    log_p: Float32s
    """(images, classes)."""
    labels: Labels
    models_that_opened_test: int = 0
    """0 where the test split stayed closed."""


@dataclass(frozen=True)
class HeldModel:
    """A model and the study that it comes from."""

    runs: RunsFolder
    name: str
    study: StudyFolder
    trials: tuple[str, ...]
    combination: Combination
    package: Path | None
    """None of a trial, which is never packaged for this."""

    def predictions(self, split: str, progress: Progress = silent) -> HeldPredictions:
        """Return what it answers on `val`, `blend` or `test`; a look at test is recorded.

        Logits that its trials left are taken where they say it all; else its images are read.

        Raises:
            ConfigError: it is none of these.
            RecordError: its study, data or logits are gone, or it was judged on a fold.
        """
        if split not in HELD_SPLITS:
            raise ConfigError(f"--split {split!r} must be one of {', '.join(HELD_SPLITS)}")
        study, held = self.study.record(), held_labels(self.study)
        labels = held.of(split)
        if not len(labels):
            raise RecordError(f"study {study.name!r} has no {split} images: name another --split")
        log_p = self.stored(split, labels)
        if log_p is None:
            log_p = self._computed(split, progress)
        opened = self._recorded() if split == "test" else 0
        return HeldPredictions(self.name, split, held.classes, log_p, labels, opened)

    def stored(self, split: str, labels: Labels) -> Float32s | None:
        """Return the predictions that stored logits say; None where views would be needed.

        Raises:
            RecordError: there are none, or they are of other images.
        """
        if self.combination.tta is not None:
            return None
        folders = [self.runs.find_trial(name) for name in self.trials]
        log_ps = [_log_p(folder, split, labels) for folder in folders]
        return self.combination.log_p(log_ps)

    def _computed(self, split: str, progress: Progress) -> Float32s:
        from carray.inference.dataset_predictions import predict_rows
        from carray.inference.predictor import load_model

        assert self.package is not None  # a trial has no views
        manifest = study_manifest(self.study.record())
        return predict_rows(load_model(self.package), manifest, manifest.rows(split), progress)

    def _recorded(self) -> int:
        study = self.study.record()
        return record_access(
            self.runs,
            model=self.name,
            study=study.name,
            manifest_hash=study.manifest_hash,
            trials=self.trials,
            combination=self.combination,
        )


def find_held_model(runs: RunsFolder, model: str) -> HeldModel:
    """Return a package (name or folder) or a trial (`STUDY/NUMBER` or folder), with its study.

    Raises:
        RecordError: there is no such model, or its study isn't under `runs`.
    """
    package = package_of(runs, model)
    if package is None:
        return _held_trial(runs, model)
    card = Card.read(package / "card.json")
    trials = tuple(member.trial for member in card.members)
    return HeldModel(
        runs, package.name, runs.find_study(card.study), trials, card.combination, package
    )


def predictions_on(
    runs: RunsFolder, model: str, data: str | os.PathLike[str], split: str, progress: Progress
) -> tuple[Manifest, HeldPredictions]:
    """Return a prepared data set, and what a model answers on a split; a look at test is recorded.

    Raises:
        RecordError: there is no such model.
        DataError: it is no data set, has other classes than the model, or no images in the split.
    """
    from carray.inference.dataset_predictions import (
        check_classes,
        predict_rows,
        record_model_access,
    )
    from carray.inference.predictor import load_model

    manifest, package = Manifest.load(data), find_package(runs, model)
    rows = manifest.rows(split)
    if not len(rows):
        raise DataError(f"{data} has no {split} images: name another with --split")
    loaded = load_model(package)
    check_classes(loaded.classes, manifest.classes, f"the model {model}", str(data))
    log_p = predict_rows(loaded, manifest, rows, progress)
    opened = record_model_access(runs, loaded.card, manifest) if split == "test" else 0
    name, labels = loaded.card.name, manifest.labels[rows]
    return manifest, HeldPredictions(name, split, loaded.classes, log_p, labels, opened)


def _held_trial(runs: RunsFolder, model: str) -> HeldModel:
    if "/" not in model and not (Path(model) / "record.json").exists():
        raise unknown_model(runs, model)
    folder = runs.find_trial(model)
    study, name = StudyFolder(folder.path.parent.parent), folder.record().name
    return HeldModel(runs, name, study, (name,), SINGLE_TRIAL, None)


def _log_p(trial: TrialFolder, split: str, labels: Labels) -> Float32s:
    record = trial.record()
    if record.config.fold is not None and split == "val":
        raise RecordError(
            f"trial {record.name} was judged on a fold, not on val: take --split blend"
        )
    return log_softmax(read_logits(trial, record.name, split, len(labels)))
