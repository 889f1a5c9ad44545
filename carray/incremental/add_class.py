"""Adds a class to a trained model: widens each head, and trains it on old and new images."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from carray import metrics
from carray.config import HeadConfig, TrialConfig, build_config
from carray.data.manifest import Manifest, check_still_there
from carray.data.pixels.store import open_store
from carray.errors import ConfigError, RecordError, TrialFailed
from carray.files import remove
from carray.incremental.data import extend_manifest
from carray.incremental.evaluate import AddedClass, evaluate_added_class
from carray.incremental.head import ClassMeans, expand_head, expanded_head_config, last_inputs
from carray.inference.card import Card, MemberCard
from carray.inference.dataset_predictions import check_classes
from carray.inference.inputs import find_package
from carray.inference.package import write_package
from carray.inference.predictor import BATCH_IMAGES, load_member
from carray.models.classifier import save_classifier
from carray.models.weights import read_weights
from carray.progress import silent
from carray.records import StudyFolder, TrialRecord, TrialState
from carray.runs_folder import RunsFolder
from carray.training.features.classifiers import refit_feature_classifier
from carray.training.train import default_device, train
from carray.typing import Progress

NOT_A_NAME = re.compile(r"[^\w.+-]")  # what a folder's name may not hold
FITTED_HEADS = ("random_forest", "knn")  # no weights that could grow
LR_SHARE = 0.2  # of the lr that the member was trained with

_logger = logging.getLogger(__name__)


def add_class(
    model: str,
    images: str | os.PathLike[str],
    name: str,
    *,
    data: str | os.PathLike[str] | None = None,
    out: str | None = None,
    epochs: int = 5,
    lr: float | None = None,
    replay: int | None = None,
    seed: int = 0,
    weights: str | os.PathLike[str] | None = None,
    runs: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> AddedClass:
    """Teach every member of a model one more class; write the new model package.

    A head that was trained grows and goes on training; a forest or nearest neighbours are fitted
    again to the features of their backbone, which stays as it is. Epochs are logged.

    Args:
        model: a package's name or folder, or a trial (`STUDY/NUMBER`).
        images: a folder of the new class's images; they are split as the data are.
        name: the new class.
        data: the data that the model was trained on; None takes its study's.
        out: the new package; None takes `MODEL-plus-NAME`, which names the study of its trials too.
        epochs: of fine-tuning.
        lr: peak learning rate; None takes `LR_SHARE` of each member's own.
        replay: training images of each old class; None takes as many as the new class has.
        seed: of the cut and of the training.
        weights: a folder of pretrained weights.
        runs: the runs folder.
        progress: shows how far the images are.

    Raises:
        ConfigError: `out` exists or can't be a name.
        DataError: the class exists or has too few images, or `data` has other classes.
        RecordError: there is no such model, or nothing tells where its data are.
        TrialFailed: a member could not be trained.
    """
    where = RunsFolder.at(runs)
    package = find_package(where, model)
    card = Card.read(package / "card.json")
    new_name = out or NOT_A_NAME.sub("_", f"{card.name}-plus-{name}")  # of a version too: NAME@2
    study = _free_study(where, new_name)
    members = [MemberCard.read(package / entry.folder / "config.json") for entry in card.members]
    for member in members:  # what can't be trained so is refused before anything is written
        _tuned(member.config, member.config.head, package, epochs, lr, seed)
    manifest = Manifest.load(data or _data_of(where, card))
    check_classes(card.classes, manifest.classes, f"the model {model}", str(manifest.folder))
    with _whole_or_gone(study):
        extended = extend_manifest(
            manifest,
            Path(images),
            name,
            study.path / "data",
            replay=replay,
            seed=seed,
            progress=progress,
        )
        teacher = _MemberTrainer(extended, where, study, epochs, lr, seed, weights, progress)
        trials = [
            study.trial(teacher.train(package / card.members[place].folder, member, place).number)
            for place, member in enumerate(members)
        ]
        combination = card.combination.widened(len(card.classes) + 1)
        write_package(where.models / new_name, study.record(), trials, combination)
    return evaluate_added_class(where, package, new_name, manifest, extended, trials, progress)


@contextmanager
def _whole_or_gone(study: StudyFolder) -> Iterator[None]:
    """Remove the study that this call made where it ends early: its name would be taken."""
    try:
        yield
    except BaseException:
        remove(study.path)
        raise


def _free_study(runs: RunsFolder, name: str) -> StudyFolder:
    if not re.fullmatch(r"[\w][\w.+-]*", name):
        raise ConfigError(f"--name {name!r} can't be a folder: use letters, digits, '-' and '_'")
    study = runs.study(name)
    if study.record_file.exists() or (runs.models / name).exists():
        raise ConfigError(f"there is a model or study {name!r} already: give another --name")
    return study


def _data_of(runs: RunsFolder, card: Card) -> str:
    study = runs.study(card.study)
    found = study.record().data if study.record_file.exists() else ""
    if not found:
        raise RecordError(
            f"nothing under {runs.path} tells which data {card.name} was trained on: give --data"
        )
    check_still_there(found, card.name)
    return found


@dataclass(frozen=True)
class _MemberTrainer:
    """Teaches one member after the other the last class of `extended`, as trials of `study`."""

    extended: Manifest
    runs: RunsFolder
    study: StudyFolder
    epochs: int
    lr: float | None
    seed: int
    weights: str | os.PathLike[str] | None
    progress: Progress

    def train(self, folder: Path, card: MemberCard, place: int) -> TrialRecord:
        """Return the record of the member's new trial.

        Raises:
            TrialFailed: it could not be trained.
        """
        file = folder / "weights.safetensors"
        if card.config.head.kind in FITTED_HEADS:
            return refit_feature_classifier(
                self.extended.folder,
                card.config,
                file,
                features_of=card.trial,
                runs=self.runs.path,
                study=self.study.path.name,
                progress=self.progress,
            )
        state = self._grown(file, card)
        grown = self.study.path / "grown" / f"{place}.safetensors"
        grown.parent.mkdir(parents=True, exist_ok=True)
        save_classifier(state, grown, card.input)
        head = expanded_head_config(card.config.head, state)
        record = train(
            self.extended.folder,
            _tuned(card.config, head, grown, self.epochs, self.lr, self.seed),
            runs=self.runs.path,
            study=self.study.path.name,
            weights=self.weights,
            on_epoch=partial(_log_epoch, card.trial),
            progress=self.progress,
        )
        if record.state is not TrialState.COMPLETE:
            new = self.extended.classes[-1]
            raise TrialFailed(f"{card.trial} could not learn {new!r}: {by_options(record.reason)}")
        return record

    def _grown(self, file: Path, card: MemberCard) -> dict[str, Tensor]:
        """Return a member's state with one class more."""
        num_classes = len(self.extended.classes) - 1
        member = load_member(file, card, num_classes, default_device())
        pixels = open_store(self.extended, *member.geometry, self.progress).pixels
        rows, means = self.extended.rows("train"), ClassMeans()
        are_new = torch.from_numpy(self.extended.labels[rows] == num_classes)
        with last_inputs(member.classifier.head, num_classes) as seen:
            for start in range(0, len(rows), BATCH_IMAGES):
                stop = start + BATCH_IMAGES
                member.logits(pixels[rows[start:stop]])
                means.add(torch.cat(seen), are_new[start:stop])
                seen.clear()
        return expand_head(read_weights(file), num_classes, means)


def by_options(sentence: str) -> str:
    """Return what training says with the options that `carray add-class` has for it."""
    for setting, option in (
        (", or set optimizer.clip_grad_norm", ""),
        ("optimizer.lr", "--lr"),
        (", or a warm-up", ""),
    ):
        sentence = sentence.replace(setting, option)
    return sentence


def _tuned(
    old: TrialConfig, head: HeadConfig, grown: Path, epochs: int, lr: float | None, seed: int
) -> TrialConfig:
    """Return the member's own recipe, shorter and gentler, from its grown weights."""
    return build_config(
        {
            "pretrained": str(grown),
            "epochs": epochs,
            "seed": seed,
            "optimizer.lr": LR_SHARE * old.optimizer.lr if lr is None else lr,
            "schedule.name": "cosine",
            "schedule.warmup_epochs": 0.0,
            "augment.mix_off_epochs": 0,
            "finetune.policy": "full",
            "early_stop_patience": 0,
            "fold": None,
        },
        old.model_copy(
            update={
                "head": head,
                "finetune": TrialConfig().finetune,
                "schedule": TrialConfig().schedule,
                "augment": old.augment.model_copy(update={"mix_off_epochs": 0}),
            }
        ),
    )


def _log_epoch(trial: str, record: TrialRecord) -> None:
    row, epoch = record.epochs[-1], len(record.epochs)
    _logger.info(
        f"{trial} {epoch:>3}/{record.config.epochs}  loss {row[metrics.TRAIN_LOSS]:.3f} | "
        f"val log-loss {row[metrics.VAL_LOG_LOSS]:.3f} top-1 {row[metrics.VAL_TOP1]:.3f}"
    )
